// The two attention hooks of a TruthRun. They come head by head and copy by copy, so what the truth
// and the local copy show is kept until the disturbed copies have been compared with it.

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/threads.h"
#include "verify/draws.h"
#include "verify/truth_run.h"

namespace sinkref {

namespace {

constexpr double minus_infinity = -std::numeric_limits<double>::infinity();

}  // namespace

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
        in_units(rms(sigma.row(r), seen), unit_of(a.hook.point, rms(a.row(r), a.width)));
    double& most = a.rows[0].sequence == local ? kept.noise[t].local : kept.noise[t].propagated;
    most = std::max(most, floor);
  }
}

void TruthRun::note_noise(const Activation<double>& a, Kept& kept) {
  const size_t base = role_base(a.rows[0].sequence);
  for (size_t r = 0; r < a.rows.size(); ++r) {
    const size_t t = a.rows[r].position - first_;
    const double* from = kept.heads[base][a.head].row(t);
    const double error = in_units(rms_between(a.row(r), from, a.width),
                                  unit_of(a.hook.point, rms(from, a.width)));
    double& most = base == local ? kept.noise[t].local : kept.noise[t].propagated;
    most = std::max(most, error);
  }
}

void TruthRun::replace_attention(const Activation<double>& a) {
  if (!candidate_.has(a.hook) || role_base(a.rows[0].sequence) != local) return;
  std::vector<double> theirs(a.width);
  for (size_t r = 0; r < a.rows.size(); ++r) {
    if (!candidate_.holds(a.rows[r].position)) continue;
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
    if (copies_ > disturbed) keep_score_sigma(a, sigma);
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

/// The disturbed copies are disturbed by the sigma of the copy that they were made from.
void TruthRun::keep_score_sigma(const Activation<double>& a, const Matrix<float>& sigma) {
  std::vector<Matrix<float>>& heads = score_sigma_[a.rows[0].sequence];
  heads.resize(config_.heads);
  Matrix<float>& kept = heads[a.head];
  if (kept.rows != count_ || kept.cols != first_ + count_)
    kept = Matrix<float>(count_, first_ + count_);
  for (size_t r = 0; r < a.rows.size(); ++r)
    std::copy_n(sigma.row(r), a.width, kept.row(a.rows[r].position - first_));
}

/// Adds what the scores' rounding does to a row of probabilities, dp_k = p_k (ds_k - sum p_j ds_j), as a
/// standard deviation: a row of few keys is too small a sample to be drawn.
void TruthRun::add_score_noise(const double* p, const float* scores, size_t width, float* sigma) const {
  double all = 0;
  for (size_t j = 0; j < width; ++j) all += std::pow(p[j] * static_cast<double>(scores[j]), 2);
  for (size_t k = 0; k < width; ++k) {
    const double own = static_cast<double>(scores[k]);
    const double variance = p[k] * p[k] * (own * own * (1 - 2 * p[k]) + all);
    sigma[k] = static_cast<float>(
        std::sqrt(std::pow(static_cast<double>(sigma[k]), 2) + std::max(variance, 0.0)));
  }
}

void TruthRun::on_pattern(const Activation<double>& a) {
  const size_t role = a.rows[0].sequence;
  const bool follows = role >= disturbed;  // another copy's softmax
  if (!follows) keep(a, pattern_, 0);
  Matrix<float> sigma(a.rows.size(), a.width);
  for (size_t r = 0; r < a.rows.size(); ++r) {
    const size_t t = a.rows[r].position - first_;
    const double* scores = scores_.heads[role_base(role)][a.head].row(t);
    const double largest = *std::max_element(scores, scores + a.width);
    const uint64_t key =
        mixed(((role * 1000003u + a.hook.layer) * 1000003u + a.head) * 1000003u + ~a.rows[r].position);
    for (size_t k = 0; k < a.width; ++k) {
      double& p = a.row(r)[k];
      if (p == 0) continue;
      const double deviation = rounding_.pattern(p, largest - scores[k]);
      if (follows) p += deviation * uniform(key + k);
      else sigma.row(r)[k] = static_cast<float>(deviation);
    }
    // The local copy's scores are theirs, if they supply them.
    const bool own_scores = role == truth || !candidate_.has({HookPoint::AttnScores, a.hook.layer}) ||
                            !candidate_.holds(a.rows[r].position);
    if (!follows && own_scores && copies_ > disturbed)
      add_score_noise(a.row(r), score_sigma_[role][a.head].row(t), a.width, sigma.row(r));
  }
  if (follows) note_noise(a, pattern_);
  else note_floor(a, pattern_, sigma);
  replace_attention(a);
  if (!follows) rounding_.observe_pattern(a);
}

void TruthRun::judge_attention(HookPoint point, size_t layer, Kept& kept) {
  const Hook hook{point, layer};
  const size_t index = hook_index(hook, config_.layers), keys = first_ + count_;
  State& state = states_[index];
  std::vector<Noise> budgets(count_);
  for (size_t t = 0; t < count_; ++t) {
    budgets[t] = state.budget.widen(kept.noise[t], first_ + t);
    kept.noise[t] = {};
  }
  if (state.result == nullptr) return;
  const size_t before = state.result->tokens.size();
  const std::vector<size_t> held = held_in_step();
  state.result->tokens.resize(before + held.size());
  parallel_for(held.size(), [&](size_t h) {
    const size_t t = held[h];
    std::vector<double> theirs(keys);
    TokenDifference worst;
    for (size_t head = 0; head < config_.heads; ++head) {
      candidate_.attention_row(hook, sequence_, head, first_ + t, keys, theirs.data());
      TokenDifference d =
          judge_row(point, {kept.heads[truth][head].row(t), kept.heads[local][head].row(t),
                            theirs.data(), ours_[index][head].row(t), keys}, budgets[t]);
      d.index = {sequence_, head, candidate_.place(first_ + t), d.index[0]};
      worst = head == 0 ? d : worse_of(worst, d);
    }
    worst.sequence = sequence_;
    worst.token = first_ + t;
    state.result->tokens[before + h] = std::move(worst);
  });
}

}  // namespace sinkref
