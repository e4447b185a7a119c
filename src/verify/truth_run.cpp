#include "verify/truth_run.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace sinkref {

namespace {

constexpr double minus_infinity = -std::numeric_limits<double>::infinity();

uint64_t mixed(uint64_t x) {  // splitmix64
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

/// Uniform with variance 1, the same for the same key wherever it is asked for.
double uniform(uint64_t key) {
  return (static_cast<double>(mixed(key) >> 11) * 0x1p-53 - 0.5) * 3.4641016151377544;
}

double rms(const double* a, const double* b, size_t width) {
  double sum = 0;
  size_t count = 0;
  for (size_t i = 0; i < width; ++i) {
    if (!std::isfinite(a[i]) || !std::isfinite(b[i])) continue;
    sum += (a[i] - b[i]) * (a[i] - b[i]);
    ++count;
  }
  return count == 0 ? 0 : std::sqrt(sum / static_cast<double>(count));
}

template <class T>
double rms(const T* a, size_t width) {
  double sum = 0;
  for (size_t i = 0; i < width; ++i) sum += static_cast<double>(a[i]) * static_cast<double>(a[i]);
  return std::sqrt(sum / static_cast<double>(width));
}

/// Only differences of scores matter, so their errors count as they are.
double unit_of(HookPoint point, double row_rms) {
  return point == HookPoint::AttnScores ? 1 : row_rms;
}

double over(double error, double unit) { return error == 0 ? 0 : error / unit; }

bool is_scale(HookPoint point) {
  return point == HookPoint::Ln1Scale || point == HookPoint::Ln2Scale ||
         point == HookPoint::LnFinalScale;
}

bool is_residual(HookPoint point) {
  return point == HookPoint::Embed || point == HookPoint::ResidPre ||
         point == HookPoint::ResidMid || point == HookPoint::ResidPost;
}

/// Two heads of one position as one: the details of the worse, the largest errors, all counts.
TokenDifference worse_of(const TokenDifference& a, const TokenDifference& b) {
  TokenDifference worst = b.local > a.local ? b : a;
  worst.propagated = std::max(a.propagated, b.propagated);
  worst.ours = std::max(a.ours, b.ours);
  worst.relative_l2 = std::max(a.relative_l2, b.relative_l2);
  worst.over = a.over + b.over;
  worst.nan = a.nan + b.nan;
  worst.inf = a.inf + b.inf;
  return worst;
}

}  // namespace

TruthRun::TruthRun(const Model& model, const Candidate& candidate, const VerifyOptions& options,
                   CandidateArithmetic arithmetic)
    : model_(model),
      config_(model.config()),
      candidate_(candidate),
      options_(options),
      rounding_(model, options.kernel, arithmetic) {
  states_.resize(all_hooks(config_.layers).size());
  ours_.resize(states_.size());
  tensors_.reserve(candidate.hooks().size());
  bool all_given = true;
  for (Hook hook : candidate.hooks()) {
    State& state = states_[causal_index(hook, config_.layers)];
    tensors_.push_back({hook_name(hook), hook, {}, 0, 0});
    state.result = &tensors_.back();
    state.given = options.budget.find(state.result->name);
    all_given &= state.given && !state.given->local.empty() && !state.given->propagated.empty();
  }
  // Where they supply every hook, a step's own rounding is all that local copies could differ by.
  if (candidate.hooks().size() + 1 >= states_.size()) local_draws_ = 0;
  copies_ = disturbed + (all_given ? 0 : local_draws_ + draws);
}

void TruthRun::run(size_t sequence) {
  sequence_ = sequence;
  tokens_ = candidate_.tokens()[sequence];
  for (State& state : states_) state.local_noise = state.noise = 0;
  RunOptions run;
  run.kernel = options_.kernel;
  run.softmax = options_.softmax;
  run.chunk = step_positions;
  const Hook last = candidate_.hooks().back();
  run.logits = last.point == HookPoint::Logits ? LogitRows::all : LogitRows::none;
  if (last.point <= HookPoint::ResidPost) run.depth = last.layer + 1;
  Forward<float> ours(model_, run);
  Forward<double> copies(model_, run);
  Hooks<float> our_hooks;
  Hooks<double> hooks;
  add_patch(options_.patch, our_hooks);
  add_ablation(options_.ablation, our_hooks);
  add_patch(options_.patch, hooks);
  add_ablation(options_.ablation, hooks);
  attach_ours(our_hooks);
  attach_copies(hooks);
  std::vector<Sequence<float>> one;
  std::vector<Sequence<double>> batch;
  one.push_back(ours.start(tokens_));
  for (size_t i = 0; i < copies_; ++i) batch.push_back(copies.start(tokens_));
  for (first_ = 0; first_ < tokens_.size(); first_ += count_) {
    count_ = std::min(step_positions, tokens_.size() - first_);
    const auto begin = tokens_.begin() + static_cast<std::ptrdiff_t>(first_);
    const std::vector<int> next(begin, begin + static_cast<std::ptrdiff_t>(count_));
    rounding_.begin(first_, count_);
    residual_noise_.assign(count_, {});
    scores_.noise.assign(count_, {});
    pattern_.noise.assign(count_, {});
    one[0].pending = next;
    for (Sequence<double>& s : batch) s.pending = next;
    ours.run(one, our_hooks);
    copies.run(batch, hooks);
    if (options_.say)
      options_.say(std::to_string(first_ + count_) + " of " + std::to_string(tokens_.size()) +
                   " tokens");
  }
}

void TruthRun::attach_ours(Hooks<float>& hooks) {
  for (Hook hook : candidate_.hooks())
    hooks.add(hook, [this](const Activation<float>& a) {
      std::vector<Matrix<float>>& kept = ours_[causal_index(a.hook, config_.layers)];
      const bool attention = is_attention(a.hook.point);
      const size_t width = attention ? first_ + count_ : a.width;
      kept.resize(attention ? config_.heads : 1);
      Matrix<float>& head = kept[attention ? a.head : 0];
      if (head.rows != count_ || head.cols != width) head = Matrix<float>(count_, width);
      const float unseen = a.hook.point == HookPoint::AttnScores
                               ? -std::numeric_limits<float>::infinity() : 0.0f;
      for (size_t r = 0; r < a.rows.size(); ++r) {
        float* row = head.row(a.rows[r].position - first_);
        std::fill(std::copy_n(a.row(r), a.width, row), row + width, unseen);
      }
    });
}

void TruthRun::attach_copies(Hooks<double>& hooks) {
  for (Hook hook : all_hooks(config_.layers)) {
    if (hook.point == HookPoint::Logits && !candidate_.has(hook)) continue;
    if (hook.point == HookPoint::AttnScores)
      hooks.add(hook, [this](const Activation<double>& a) { on_scores(a); });
    else if (hook.point == HookPoint::Pattern)
      hooks.add(hook, [this](const Activation<double>& a) { on_pattern(a); });
    else
      hooks.add(hook, [this](const Activation<double>& a) { on_step(a); });
  }
}

size_t TruthRun::role_base(size_t role) const {
  return role < disturbed ? role : role < disturbed + local_draws_ ? local : truth;
}

/// Rows of one token share their disturbance: equal inputs are rounded equally, and the errors of
/// a run of one token do not average out.
double TruthRun::draw(const Activation<double>& a, size_t row, size_t i) const {
  const Row& r = a.rows[row];
  const uint64_t key = (r.sequence * 1000003u + causal_index(a.hook, config_.layers)) * 1000003u +
                       static_cast<uint64_t>(tokens_[r.position]);
  return uniform(mixed(key) + i);
}

void TruthRun::on_step(const Activation<double>& a) {
  if (a.hook.point == HookPoint::Z) {
    judge_attention(HookPoint::AttnScores, a.hook.layer, scores_);
    judge_attention(HookPoint::Pattern, a.hook.layer, pattern_);
  }
  const Matrix<float>& sigma = rounding_.step(a);
  if (a.hook.point == HookPoint::RotQ || a.hook.point == HookPoint::RotK) disturb_angles(a);
  disturb(a, sigma);
  measure(a, sigma);
  if (candidate_.has(a.hook)) {
    std::vector<double> theirs(a.width);
    for (size_t t = 0; t < count_; ++t) {
      candidate_.row(a.hook, sequence_, first_ + t, theirs.data());
      for (size_t role = local; role < copies_ && role_base(role) == local; ++role)
        for (size_t i = 0; i < a.width; ++i)
          if (std::isfinite(theirs[i])) a.row(role * count_ + t)[i] = theirs[i];
    }
  }
  rounding_.observe(a);
}

void TruthRun::disturb(const Activation<double>& a, const Matrix<float>& sigma) {
#pragma omp parallel for schedule(static)
  for (size_t r = disturbed * count_; r < a.rows.size(); ++r) {
    const float* base = sigma.row(role_base(a.rows[r].sequence) * count_ + r % count_);
    for (size_t i = 0; i < a.width; ++i) a.row(r)[i] += static_cast<double>(base[i]) * draw(a, r, i);
  }
}

/// A table's frequency is off by the same amount at every position, for queries and for keys.
void TruthRun::disturb_angles(const Activation<double>& a) {
  const size_t h = config_.head_dim, half = h / 2;
  for (size_t r = disturbed * count_; r < a.rows.size(); ++r)
    for (size_t i = 0; i < half; ++i) {
      const double delta = rounding_.angle(i, a.rows[r].position) *
                           uniform(a.rows[r].sequence * 1000003u + i);
      for (size_t head = 0; head < a.width; head += h) {
        double& x = a.row(r)[head + i];
        double& y = a.row(r)[head + half + i];
        const double turned = x - delta * y;
        y += delta * x;
        x = turned;
      }
    }
}

TruthRun::Noise TruthRun::noise_of(const Activation<double>& a, const Matrix<float>& sigma,
                                   size_t t) const {
  const auto of = [&](size_t base) {
    double most = rms(sigma.row(base * count_ + t), a.width);
    for (size_t role = disturbed; role < copies_; ++role)
      if (role_base(role) == base)
        most = std::max(most, rms(a.row(role * count_ + t), a.row(base * count_ + t), a.width));
    return over(most, unit_of(a.hook.point, rms(a.row(base * count_ + t), a.width)));
  };
  return {of(local), of(truth)};
}

void TruthRun::measure(const Activation<double>& a, const Matrix<float>& sigma) {
  State& state = states_[causal_index(a.hook, config_.layers)];
  std::vector<double> theirs(a.width);
  for (size_t t = 0; t < count_; ++t) {
    Noise noise = noise_of(a, sigma, t);
    if (is_residual(a.hook.point)) residual_noise_[t] = noise;
    if (is_scale(a.hook.point)) {  // one number is no sample; its error is at most the row's
      noise.propagated += residual_noise_[t].propagated;
      noise.local += residual_noise_[t].local;
    }
    const Noise budget = budgets(state, noise, first_ + t);
    if (state.result == nullptr) continue;
    candidate_.row(a.hook, sequence_, first_ + t, theirs.data());
    const RowValues row{a.row(truth * count_ + t), a.row(local * count_ + t), theirs.data(),
                        ours_[causal_index(a.hook, config_.layers)][0].row(t), a.width};
    state.result->tokens.push_back(judge(a.hook.point, row, budget, first_ + t));
    TokenDifference& token = state.result->tokens.back();
    std::vector<size_t> index = {sequence_, first_ + t};
    const std::vector<size_t> shape = hook_shape(a.hook.point, config_);
    if (shape.size() == 2) index.push_back(token.index[0] / shape[1]);
    index.push_back(shape.size() == 2 ? token.index[0] % shape[1] : token.index[0]);
    token.index = index;
  }
}

TruthRun::Noise TruthRun::budgets(State& state, Noise noise, size_t position) {
  const auto grow = [&](double& largest, double now, Budget::Steps& steps) {
    largest = std::max(largest, now);
    const double budget = budget_factor * largest;
    if (steps.empty() || budget > 1.05 * steps.back().value) {
      const auto at = std::find_if(steps.begin(), steps.end(),
                                   [&](const Budget::Step& s) { return s.position >= position; });
      steps.erase(at, steps.end());
      steps.push_back({position, budget});
    }
    return budget;
  };
  Noise derived{grow(state.local_noise, noise.local, state.local_steps),
                grow(state.noise, noise.propagated, state.steps)};
  if (state.given && !state.given->local.empty())
    derived.local = Budget::at(state.given->local, position);
  if (state.given && !state.given->propagated.empty())
    derived.propagated = Budget::at(state.given->propagated, position);
  return derived;
}

TokenDifference TruthRun::judge(HookPoint point, const RowValues& row, Noise budget,
                                size_t position) const {
  const RowDifference from_truth = row_difference(row.truth, row.theirs, row.width);
  const RowDifference from_local = row_difference(row.local, row.theirs, row.width);
  const std::vector<double> ours(row.ours, row.ours + row.width);
  const double unit = unit_of(point, from_truth.truth_rms());
  const double local_unit = unit_of(point, from_local.truth_rms());
  TokenDifference d;
  d.sequence = sequence_;
  d.token = position;
  d.propagated = over(from_truth.rms(), unit);
  d.local = over(from_local.rms(), local_unit);
  d.propagated_budget = budget.propagated;
  d.local_budget = budget.local;
  d.ours = over(row_difference(row.truth, ours.data(), row.width).rms(), unit);
  d.max_abs = from_local.max_abs;
  const size_t i = from_local.index;
  d.index = {i};
  d.our_value = ours[i];
  d.their_value = row.theirs[i];
  d.truth = row.truth[i];
  d.expected = row.local[i];
  d.ulps = ulps_between(static_cast<float>(row.local[i]), static_cast<float>(row.theirs[i]));
  d.relative_l2 = over(from_truth.rms(), from_truth.truth_rms());
  for (size_t j = 0; j < row.width; ++j)
    d.over += !(std::fabs(row.theirs[j] - row.local[j]) <= budget.local * local_unit) &&
              row.theirs[j] != row.local[j];
  d.nan = from_truth.nan;
  d.inf = from_truth.inf;
  return d;
}

void TruthRun::keep(const Activation<double>& a, Kept& kept, double unseen) {
  const size_t role = a.rows[0].sequence, keys = first_ + count_;
  kept.heads[role].resize(config_.heads);
  Matrix<double>& head = kept.heads[role][a.head];
  if (head.rows != count_ || head.cols != keys) head = Matrix<double>(count_, keys);
  for (size_t r = 0; r < a.rows.size(); ++r) {
    double* row = head.row(a.rows[r].position - first_);
    std::fill(std::copy_n(a.row(r), a.width, row), row + keys, unseen);
  }
}

/// The rounding of the scores or the pattern of a followed copy itself: the least their noise can be.
void TruthRun::note_floor(const Activation<double>& a, Kept& kept, const Matrix<float>& sigma) {
  for (size_t r = 0; r < a.rows.size(); ++r) {
    const size_t t = a.rows[r].position - first_;
    const size_t seen = a.rows[r].position + 1;
    const double floor =
        over(rms(sigma.row(r), seen), unit_of(a.hook.point, rms(a.row(r), a.width)));
    double& most = a.rows[0].sequence == local ? kept.noise[t].local : kept.noise[t].propagated;
    most = std::max(most, floor);
  }
}

void TruthRun::note_noise(const Activation<double>& a, Kept& kept) {
  const size_t base = role_base(a.rows[0].sequence);
  for (size_t r = 0; r < a.rows.size(); ++r) {
    const size_t t = a.rows[r].position - first_;
    const double* from = kept.heads[base][a.head].row(t);
    const double error = over(rms(a.row(r), from, a.width),
                              unit_of(a.hook.point, rms(from, a.width)));
    double& most = base == local ? kept.noise[t].local : kept.noise[t].propagated;
    most = std::max(most, error);
  }
}

void TruthRun::replace_attention(const Activation<double>& a) {
  if (!candidate_.has(a.hook) || role_base(a.rows[0].sequence) != local) return;
  std::vector<double> theirs(a.width);
  for (size_t r = 0; r < a.rows.size(); ++r) {
    candidate_.attention_row(a.hook, sequence_, a.head, a.rows[r].position, a.width, theirs.data());
    for (size_t k = 0; k < a.width; ++k)
      if (!std::isnan(theirs[k]) && theirs[k] < -minus_infinity) a.row(r)[k] = theirs[k];
  }
}

void TruthRun::on_scores(const Activation<double>& a) {
  const size_t role = a.rows[0].sequence;
  if (role < disturbed) {
    keep(a, scores_, minus_infinity);
    const Matrix<float>& sigma = rounding_.scores(a);
    note_floor(a, scores_, sigma);
    if (copies_ > disturbed) {
      score_sigma_[role].resize(config_.heads);
      Matrix<float>& kept = score_sigma_[role][a.head];
      if (kept.rows != count_ || kept.cols != first_ + count_)
        kept = Matrix<float>(count_, first_ + count_);
      for (size_t r = 0; r < a.rows.size(); ++r)
        std::copy_n(sigma.row(r), a.width, kept.row(a.rows[r].position - first_));
    }
  } else {
    for (size_t r = 0; r < a.rows.size(); ++r) {
      const float* sigma =
          score_sigma_[role_base(role)][a.head].row(a.rows[r].position - first_);
      const uint64_t key = mixed(
          ((role * 1000003u + a.hook.layer) * 1000003u + a.head) * 1000003u + a.rows[r].position);
      for (size_t k = 0; k < a.width; ++k)
        if (sigma[k] != 0) a.row(r)[k] += static_cast<double>(sigma[k]) * uniform(key + k);
    }
    note_noise(a, scores_);
  }
  replace_attention(a);
}

void TruthRun::on_pattern(const Activation<double>& a) {
  const size_t role = a.rows[0].sequence;
  if (role < disturbed) {
    keep(a, pattern_, 0);
    Matrix<float> sigma(a.rows.size(), a.width);
    for (size_t r = 0; r < a.rows.size(); ++r) {
      const double* scores = scores_.heads[role][a.head].row(a.rows[r].position - first_);
      const double largest = *std::max_element(scores, scores + a.width);
      for (size_t k = 0; k < a.width; ++k)
        if (a.row(r)[k] != 0)
          sigma.row(r)[k] =
              static_cast<float>(rounding_.pattern(a.row(r)[k], largest - scores[k]));
    }
    note_floor(a, pattern_, sigma);
  } else {
    for (size_t r = 0; r < a.rows.size(); ++r) {
      const size_t t = a.rows[r].position - first_;
      const double* scores = scores_.heads[role_base(role)][a.head].row(t);
      const double largest = *std::max_element(scores, scores + a.width);
      const uint64_t key =
          mixed(((role * 1000003u + a.hook.layer) * 1000003u + a.head) * 1000003u + ~t);
      for (size_t k = 0; k < a.width; ++k)
        if (a.row(r)[k] != 0)
          a.row(r)[k] += rounding_.pattern(a.row(r)[k], largest - scores[k]) * uniform(key + k);
    }
    note_noise(a, pattern_);
  }
  replace_attention(a);
  if (role < disturbed) rounding_.observe_pattern(a);
}

void TruthRun::judge_attention(HookPoint point, size_t layer, Kept& kept) {
  const size_t index = causal_index({point, layer}, config_.layers), keys = first_ + count_;
  State& state = states_[index];
  std::vector<double> theirs(keys);
  for (size_t t = 0; t < count_; ++t) {
    Noise noise = kept.noise[t];
    const Noise budget = budgets(state, noise, first_ + t);
    if (state.result == nullptr) continue;
    TokenDifference worst;
    for (size_t head = 0; head < config_.heads; ++head) {
      candidate_.attention_row({point, layer}, sequence_, head, first_ + t, keys, theirs.data());
      TokenDifference d = judge(point,
                                {kept.heads[truth][head].row(t), kept.heads[local][head].row(t),
                                 theirs.data(), ours_[index][head].row(t), keys},
                                budget, first_ + t);
      d.index = {sequence_, head, first_ + t, d.index[0]};
      worst = head == 0 ? d : worse_of(worst, d);
    }
    state.result->tokens.push_back(worst);
    kept.noise[t] = {};
  }
}

Budget TruthRun::budget() const {
  Budget budget;
  for (const State& state : states_) {
    if (state.result == nullptr) continue;
    Budget::Entry entry{state.local_steps, state.steps};
    if (state.given && !state.given->local.empty()) entry.local = state.given->local;
    if (state.given && !state.given->propagated.empty()) entry.propagated = state.given->propagated;
    budget.set(state.result->name, entry);
  }
  return budget;
}

}  // namespace sinkref
