// Ordinary text under every intervention: perplexity, and which logits move.

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "base/threads.h"
#include "measure/patch_effect/parts.h"
#include "sinkref/error.h"

namespace sinkref {

namespace {

constexpr size_t listed = 10;
constexpr size_t rows_of_logits = 256;  // at once: each is as long as the vocabulary

/// One position under an intervention, against the original.
struct PositionMove {
  double common = 0;  ///< mean of logit - original logit over the vocabulary
  double squares = 0, largest = 0, kl = 0;
  double normaliser = 0;
  bool argmax_changed = false;
};

/// What the softmax of one row of logits needs.
struct Normaliser {
  size_t argmax;
  double log_sum;  ///< log Σ exp(logit)
};

Normaliser normaliser_of(const float* logits, size_t n) {
  const size_t best = argmax<float>({logits, n});
  const double largest = logits[best];
  double sum = 0;
  for (size_t i = 0; i < n; ++i) sum += std::exp(logits[i] - largest);
  return {best, largest + std::log(sum)};
}

/// The original's logits at one position, and its probabilities.
struct OriginalRow {
  const float* logits;
  Normaliser normaliser;
  std::vector<double> p;

  OriginalRow(const float* row, size_t n) : logits(row), normaliser(normaliser_of(row, n)), p(n) {
    for (size_t i = 0; i < n; ++i) p[i] = std::exp(row[i] - normaliser.log_sum);
  }
};

PositionMove compare(const OriginalRow& original, const float* logits, const Normaliser& of_logits) {
  const size_t n = original.p.size();
  PositionMove move;
  move.normaliser = of_logits.log_sum;
  double moved_by_p = 0;  // Σ p · (logit - original)
  for (size_t i = 0; i < n; ++i) {
    const double moved = double(logits[i]) - double(original.logits[i]);
    move.common += moved;
    moved_by_p += original.p[i] * moved;
  }
  move.common /= static_cast<double>(n);
  for (size_t i = 0; i < n; ++i) {
    const double moved = double(logits[i]) - double(original.logits[i]) - move.common;
    move.squares += moved * moved;
    move.largest = std::max(move.largest, std::fabs(moved));
  }
  // Σ p (log p - log q); not below 0 by a rounding
  move.kl = std::max(0.0, move.normaliser - original.normaliser.log_sum - moved_by_p);
  move.argmax_changed = original.normaliser.argmax != of_logits.argmax;
  return move;
}

/// Logits of one step: the same positions under every intervention, the original first.
class StepRows {
 public:
  /// A call of the hook may bring one sequence, as --kernel spec does, or several.
  void add(const Activation<float>& a) {
    width_ = a.width;
    for (size_t r = 0; r < a.rows.size(); ++r) {
      std::vector<float>& logits = logits_[a.rows[r].sequence];
      if (logits.empty()) first_position = a.rows[r].position;
      logits.insert(logits.end(), a.row(r), a.row(r) + width_);
    }
    if (!complete()) return;
    count = logits_[0].size() / width_;
    moves.assign(intervention_count, std::vector<PositionMove>(count));
    parallel_for(count, [&](size_t r) {
      const OriginalRow original(row(0, r), width_);
      for (size_t i = 0; i < intervention_count; ++i)
        moves[i][r] =
            compare(original, row(i, r), i == 0 ? original.normaliser : normaliser_of(row(i, r), width_));
    });
  }
  bool complete() const {
    return std::all_of(logits_.begin(), logits_.end(), [&](const auto& logits) {
      return !logits.empty() && logits.size() == logits_[0].size();
    });
  }
  void clear() {
    for (std::vector<float>& logits : logits_) logits.clear();
  }
  const float* row(size_t intervention, size_t r) const { return logits_[intervention].data() + r * width_; }

  size_t first_position = 0, count = 0;
  std::vector<std::vector<PositionMove>> moves;

 private:
  size_t width_ = 0;
  std::vector<std::vector<float>> logits_ = std::vector<std::vector<float>>(intervention_count);
};

/// Sums over the positions of all pieces, of one intervention.
class TextSums {
 public:
  explicit TextSums(size_t vocabulary) : absolute_(vocabulary), signed_(vocabulary) {}

  void begin_piece() { nll_.push_back(0); }

  /// Adds the rows of one intervention. No sum crosses a thread.
  void add(const std::vector<int>& tokens, const StepRows& step, size_t intervention) {
    constexpr size_t entries = 1024;  // a block of the vocabulary
    const size_t n = absolute_.size();
    const std::vector<PositionMove>& moves = step.moves[intervention];
    parallel_for((n + entries - 1) / entries, [&](size_t block) {
      const size_t begin = block * entries;
      for (size_t r = 0; r < step.count; ++r) {
        const float *original = step.row(0, r), *logits = step.row(intervention, r);
        for (size_t i = begin; i < std::min(begin + entries, n); ++i) {
          const double moved = double(logits[i]) - double(original[i]) - moves[r].common;
          absolute_[i] += std::fabs(moved);
          signed_[i] += moved;
        }
      }
    });
    for (size_t r = 0; r < step.count; ++r)
      add(tokens, step.first_position + r, moves[r], step.moves[0][r], step.row(intervention, r),
          step.row(0, r));
  }

  /// `original`: the sums of the original, `counts` the predicted tokens of each piece.
  TextEffect effect(const TextSums& original, const std::vector<size_t>& counts) const {
    TextEffect e = effect_;
    const RatioEstimate nll = ratio_estimate(nll_, counts);
    std::vector<double> differences(nll_.size());
    for (size_t i = 0; i < nll_.size(); ++i) differences[i] = nll_[i] - original.nll_[i];
    const RatioEstimate difference = ratio_estimate(differences, counts);
    e.nll = nll.mean;
    e.nll_error = nll.error;
    e.difference = difference.mean;
    e.difference_error = difference.error;
    e.perplexity = std::exp(nll.mean);
    e.perplexity_error = e.perplexity * nll.error;
    const double n = static_cast<double>(positions_);
    e.kl_mean /= n;
    e.argmax_changed /= n;
    e.logit_rms = std::sqrt(squares_ / n / static_cast<double>(absolute_.size()));
    e.tokens = moved_most();
    const auto by_kl = [](const PositionShift& a, const PositionShift& b) {
      if (a.kl != b.kl) return a.kl > b.kl;
      return std::pair(a.piece, a.position) < std::pair(b.piece, b.position);
    };
    std::sort(e.positions.begin(), e.positions.end(), by_kl);
    e.positions.resize(std::min(e.positions.size(), listed));
    return e;
  }

 private:
  void add(const std::vector<int>& tokens, size_t position, const PositionMove& move,
           const PositionMove& of_original, const float* logits, const float* original) {
    squares_ += move.squares;
    effect_.logit_max = std::max(effect_.logit_max, move.largest);
    effect_.kl_mean += move.kl;
    effect_.kl_max = std::max(effect_.kl_max, move.kl);
    effect_.argmax_changed += move.argmax_changed;
    ++positions_;
    if (position + 1 == tokens.size()) return;  // nothing is predicted
    const size_t next = static_cast<size_t>(tokens[position + 1]);
    const double nll = move.normaliser - logits[next];
    nll_.back() += nll;
    effect_.positions.push_back({nll_.size() - 1, position, tokens[position], move.kl,
                                 of_original.normaliser - original[next], nll});
  }

  std::vector<LogitShift> moved_most() const {
    std::vector<LogitShift> all;
    for (size_t i = 0; i < absolute_.size(); ++i)
      all.push_back({static_cast<int>(i), absolute_[i] / static_cast<double>(positions_),
                     signed_[i] / static_cast<double>(positions_)});
    const size_t count = std::min(listed, all.size());
    std::partial_sort(all.begin(), all.begin() + static_cast<long>(count), all.end(),
                      [](const LogitShift& a, const LogitShift& b) {
                        return a.mean_absolute != b.mean_absolute ? a.mean_absolute > b.mean_absolute
                                                                  : a.token < b.token;
                      });
    all.resize(count);
    return all;
  }

  std::vector<double> absolute_, signed_;  // by vocabulary entry
  std::vector<double> nll_;                // by piece
  double squares_ = 0;
  size_t positions_ = 0;
  TextEffect effect_;
};

}  // namespace

std::vector<double> log_probabilities(const float* logits, size_t n) {
  const double normaliser = normaliser_of(logits, n).log_sum;
  std::vector<double> log_p(n);
  for (size_t i = 0; i < n; ++i) log_p[i] = logits[i] - normaliser;
  return log_p;
}

double divergence(const std::vector<double>& log_p, const std::vector<double>& log_q) {
  double sum = 0;
  for (size_t i = 0; i < log_p.size(); ++i) {
    const double p = std::exp(log_p[i]);
    if (p > 0) sum += p * (log_p[i] - log_q[i]);
  }
  return sum;
}

RatioEstimate ratio_estimate(const std::vector<double>& sums, const std::vector<size_t>& counts) {
  const double k = static_cast<double>(sums.size());
  const double total = static_cast<double>(std::accumulate(counts.begin(), counts.end(), size_t(0)));
  RatioEstimate estimate{std::accumulate(sums.begin(), sums.end(), 0.0) / total, 0};
  if (sums.size() < 2) {
    estimate.error = std::numeric_limits<double>::quiet_NaN();  // one piece has no spread
    return estimate;
  }
  double squares = 0;
  for (size_t i = 0; i < sums.size(); ++i)
    squares += std::pow(sums[i] - estimate.mean * static_cast<double>(counts[i]), 2);
  estimate.error = std::sqrt(k / (k - 1) * squares) / total;
  return estimate;
}

void measure_text(const Model& model, const RunOptions& options, const PatchEffectInputs& inputs,
                  Progress& progress, PatchEffect& effect) {
  RunOptions together = options;
  together.chunk = std::max<size_t>(1, std::min(options.chunk, rows_of_logits) / intervention_count);
  std::vector<TextSums> sums(intervention_count, TextSums(model.config().vocab_size));
  std::vector<size_t> counts;
  for (const std::vector<int>& piece : inputs.text) {
    if (piece.size() < 2) throw InputError("a piece of text has fewer than two tokens");
    counts.push_back(piece.size() - 1);
    effect.predicted += piece.size() - 1;
    StepRows step;
    Hooks<float> hooks;
    for (size_t i = 0; i < intervention_count; ++i) {
      Hooks<float> own;
      add_intervention(interventions[i], inputs.neurons, own);
      hooks.add_for(i, own);
      sums[i].begin_piece();
    }
    hooks.add({HookPoint::Logits, 0}, [&](const Activation<float>& a) {
      step.add(a);
      if (!step.complete()) return;
      for (size_t i = 0; i < intervention_count; ++i) sums[i].add(piece, step, i);
      step.clear();
    });
    run(model, together, std::vector(intervention_count, piece), hooks);
    progress.share(double(counts.size()) / double(inputs.text.size()));
  }
  effect.pieces = inputs.text.size();
  for (const TextSums& of : sums) effect.text.push_back(of.effect(sums[0], counts));
}

}  // namespace sinkref
