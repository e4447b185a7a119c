#include "verify/truth_run.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/threads.h"
#include "verify/draws.h"
#include "model/work.h"

namespace sinkref {

namespace {

bool is_scale(HookPoint point) {
  return point == HookPoint::Ln1Scale || point == HookPoint::Ln2Scale ||
         point == HookPoint::LnFinalScale;
}

bool is_residual(HookPoint point) {
  return point == HookPoint::Embed || point == HookPoint::ResidPre ||
         point == HookPoint::ResidMid || point == HookPoint::ResidPost;
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
    State& state = states_[hook_index(hook, config_.layers)];
    tensors_.push_back({hook_name(hook), hook, {}, 0, 0});
    state.result = &tensors_.back();
    const Budget::Entry* given = options.budget.find(state.result->name);
    state.budget = RunningBudget(given);
    all_given &= given && !given->local.empty() && !given->propagated.empty();
  }
  // Where they supply every step, its own rounding is all that local copies could differ by.
  const std::vector<Hook> all = all_hooks(config_.layers);
  if (candidate.holds_all() && std::all_of(all.begin(), all.end(), [&](Hook hook) {
        return hook.point == HookPoint::Logits || candidate.has(hook);
      }))
    local_draws_ = 0;
  lasting_ = disturbed + (all_given ? 0 : local_draws_ + draws);
}

void TruthRun::run(size_t sequence) {
  if (all_ == 0)
    for (const std::vector<int>& tokens : candidate_.tokens()) all_ += work_of(tokens.size());
  sequence_ = sequence;
  tokens_ = candidate_.tokens()[sequence];
  for (State& state : states_) state.budget.restart();
  Hooks<float> our_hooks;
  Hooks<double> hooks;
  add_patch(options_.patch, our_hooks);
  add_ablation(options_.ablation, our_hooks);
  add_patch(options_.patch, hooks);
  add_ablation(options_.ablation, hooks);
  attach_ours(our_hooks);
  attach_copies(hooks);
  RunOptions how;
  how.kernel = options_.kernel;
  how.softmax = options_.softmax;
  how.chunk = step_positions;
  Forward<float> ours(model_, how, extent_of(our_hooks, config_));
  Forward<double> copies(model_, how, extent_of(hooks, config_));
  std::vector<Sequence<float>> one;
  std::vector<Sequence<double>> batch;
  one.push_back(ours.start(tokens_));
  const size_t early = early_copies();
  std::vector<int> beginning = tokens_;
  beginning.resize(std::min(early_positions, tokens_.size()));
  for (size_t i = 0; i < lasting_; ++i) batch.push_back(copies.start(tokens_));
  for (size_t i = 0; i < early; ++i) batch.push_back(copies.start(beginning));
  for (first_ = 0; first_ < tokens_.size(); first_ += count_) {
    count_ = std::min(step_at(first_), tokens_.size() - first_);
    copies_ = lasting_ + (first_ == 0 ? early : 0);
    batch.erase(batch.begin() + static_cast<std::ptrdiff_t>(copies_), batch.end());
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
    done_ += work_of_step(first_, count_);
    if (options_.share)
      options_.share(done_ / all_, std::to_string(first_ + count_) + " of " +
                                       std::to_string(tokens_.size()) + " tokens");
  }
}

size_t TruthRun::early_copies() const {
  return lasting_ == disturbed ? 0 : early_draws * (local_draws_ > 0 ? 2 : 1);
}

size_t TruthRun::step_at(size_t first) const {
  return first == 0 && early_copies() > 0 ? early_positions : step_positions;
}

double TruthRun::work_of_step(size_t first, size_t count) const {
  return prefill_work(config_, count, lasting_ + (first == 0 ? early_copies() : 0), first);
}

double TruthRun::work_of(size_t tokens) const {
  double work = 0;
  for (size_t first = 0; first < tokens; first += step_at(first))
    work += work_of_step(first, std::min(step_at(first), tokens - first));
  return work;
}

void TruthRun::attach_ours(Hooks<float>& hooks) {
  for (Hook hook : candidate_.hooks())
    hooks.add(hook, [this](const Activation<float>& a) {
      std::vector<Matrix<float>>& kept = ours_[hook_index(a.hook, config_.layers)];
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
  if (role < disturbed) return role;
  if (role >= lasting_) return local_draws_ > 0 && (role - lasting_) % 2 == 1 ? local : truth;
  return role < disturbed + local_draws_ ? local : truth;
}

void TruthRun::on_step(const Activation<double>& a) {
  if (a.hook.point == HookPoint::Z) {
    judge_attention(HookPoint::AttnScores, a.hook.layer, scores_);
    judge_attention(HookPoint::Pattern, a.hook.layer, pattern_);
  }
  const Matrix<float>& sigma = rounding_.step(a);
  if (a.hook.point == HookPoint::RotQ || a.hook.point == HookPoint::RotK) disturb_angles(a);
  disturb(a, sigma);
  const std::vector<Noise> budgets = budgets_at(a, sigma);
  if (candidate_.has(a.hook)) judge_and_replace(a, budgets);
  rounding_.observe(a);
}

/// Rows of one token share their disturbance: equal inputs are rounded equally, and the errors of
/// a run of one token do not average out.
void TruthRun::disturb(const Activation<double>& a, const Matrix<float>& sigma) {
  const uint64_t hook = hook_index(a.hook, config_.layers);
  parallel_for(a.rows.size(), [&](size_t r) {
    if (r < disturbed * count_) return;
    const Row& row = a.rows[r];
    const float* base = sigma.row(role_base(row.sequence) * count_ + r % count_);
    const uint64_t key = mixed((row.sequence * 1000003u + hook) * 1000003u +
                               static_cast<uint64_t>(tokens_[row.position]));
    double* values = a.row(r);
    for (size_t i = 0; i < a.width; ++i)
      values[i] += static_cast<double>(base[i]) * uniform(key + i);
  });
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

/// How far the disturbed copies are from what they were made from, and the step's own rounding.
Noise TruthRun::noise_of(const Activation<double>& a, const Matrix<float>& sigma, size_t t) const {
  const auto of = [&](size_t base) {
    double most = rms(sigma.row(base * count_ + t), a.width);
    for (size_t role = disturbed; role < copies_; ++role)
      if (role_base(role) == base)
        most = std::max(most, rms_between(a.row(role * count_ + t), a.row(base * count_ + t), a.width));
    return in_units(most, unit_of(a.hook.point, rms(a.row(base * count_ + t), a.width)));
  };
  return {of(local), of(truth)};
}

std::vector<Noise> TruthRun::budgets_at(const Activation<double>& a, const Matrix<float>& sigma) {
  std::vector<Noise> noise(count_);
  parallel_for(count_, [&](size_t t) { noise[t] = noise_of(a, sigma, t); });
  if (is_residual(a.hook.point)) residual_noise_ = noise;
  RunningBudget& running = states_[hook_index(a.hook, config_.layers)].budget;
  for (size_t t = 0; t < count_; ++t) {
    if (is_scale(a.hook.point)) {  // one number is no sample; its error is at most the row's
      noise[t].propagated += residual_noise_[t].propagated;
      noise[t].local += residual_noise_[t].local;
    }
    noise[t] = running.widen(noise[t], first_ + t);
  }
  return noise;
}

std::vector<size_t> TruthRun::held_in_step() const {
  std::vector<size_t> held;
  for (size_t t = 0; t < count_; ++t)
    if (candidate_.holds(first_ + t)) held.push_back(t);
  return held;
}

/// Compares theirs, and puts it in the place of the local copies' values: they go on from there.
void TruthRun::judge_and_replace(const Activation<double>& a, const std::vector<Noise>& budgets) {
  const size_t index = hook_index(a.hook, config_.layers);
  const std::vector<size_t> shape = hook_shape(a.hook.point, config_);
  std::vector<TokenDifference>& tokens = states_[index].result->tokens;
  const size_t before = tokens.size();
  const std::vector<size_t> held = held_in_step();
  tokens.resize(before + held.size());
  parallel_for(held.size(), [&](size_t h) {
    const size_t t = held[h];
    std::vector<double> theirs(a.width);
    candidate_.row(a.hook, sequence_, first_ + t, theirs.data());
    TokenDifference d =
        judge_row(a.hook.point, {a.row(truth * count_ + t), a.row(local * count_ + t),
                                 theirs.data(), ours_[index][0].row(t), a.width}, budgets[t]);
    const size_t i = d.index[0];
    d.index = {sequence_, candidate_.place(first_ + t)};
    if (shape.size() == 2) d.index.push_back(i / shape[1]);
    d.index.push_back(shape.size() == 2 ? i % shape[1] : i);
    d.sequence = sequence_;
    d.token = first_ + t;
    tokens[before + h] = std::move(d);
    for (size_t role = local; role < copies_; ++role) {
      if (role_base(role) != local) continue;
      double* values = a.row(role * count_ + t);
      for (size_t i = 0; i < a.width; ++i)
        if (std::isfinite(theirs[i])) values[i] = theirs[i];
    }
  });
}

Budget TruthRun::budget() const {
  Budget budget;
  for (const State& state : states_)
    if (state.result) budget.set(state.result->name, state.budget.entry());
  return budget;
}

}  // namespace sinkref
