#include "verify/row.h"

#include <algorithm>
#include <cmath>

#include "verify/difference.h"

namespace sinkref {

namespace {

/// A new step where the budget has grown by a twentieth. Other sequences may have set later ones.
double grow(double& largest, double now, Budget::Steps& steps, size_t position) {
  largest = std::max(largest, now);
  const double budget = budget_factor * largest;
  if (steps.empty() || budget > 1.05 * steps.back().value) {
    const auto at = std::find_if(steps.begin(), steps.end(),
                                 [&](const Budget::Step& s) { return s.position >= position; });
    steps.erase(at, steps.end());
    steps.push_back({position, budget});
  }
  return budget;
}

}  // namespace

double unit_of(HookPoint point, double row_rms) {
  return point == HookPoint::AttnScores ? 1 : row_rms;
}

double in_units(double error, double unit) { return error == 0 ? 0 : error / unit; }

double rms_between(const double* a, const double* b, size_t width) {
  double sum = 0;
  size_t count = 0;
  for (size_t i = 0; i < width; ++i) {
    if (!std::isfinite(a[i]) || !std::isfinite(b[i])) continue;
    sum += (a[i] - b[i]) * (a[i] - b[i]);
    ++count;
  }
  return count == 0 ? 0 : std::sqrt(sum / static_cast<double>(count));
}

Noise RunningBudget::widen(Noise noise, size_t position) {
  Noise budget{grow(largest_.local, noise.local, derived_.local, position),
               grow(largest_.propagated, noise.propagated, derived_.propagated, position)};
  if (given_ && !given_->local.empty()) budget.local = Budget::at(given_->local, position);
  if (given_ && !given_->propagated.empty())
    budget.propagated = Budget::at(given_->propagated, position);
  return budget;
}

Budget::Entry RunningBudget::entry() const {
  Budget::Entry entry = derived_;
  if (given_ && !given_->local.empty()) entry.local = given_->local;
  if (given_ && !given_->propagated.empty()) entry.propagated = given_->propagated;
  return entry;
}

TokenDifference judge_row(HookPoint point, const RowValues& row, Noise budget) {
  const RowDifference from_truth = row_difference(row.truth, row.theirs, row.width);
  const RowDifference from_local = row_difference(row.local, row.theirs, row.width);
  const std::vector<double> ours(row.ours, row.ours + row.width);
  const double unit = unit_of(point, from_truth.truth_rms());
  const double local_unit = unit_of(point, from_local.truth_rms());
  TokenDifference d;
  d.propagated = in_units(from_truth.rms(), unit);
  d.local = in_units(from_local.rms(), local_unit);
  d.propagated_budget = budget.propagated;
  d.local_budget = budget.local;
  d.ours = in_units(row_difference(row.truth, ours.data(), row.width).rms(), unit);
  d.max_abs = from_local.max_abs;
  const size_t i = from_local.index;
  d.index = {i};
  d.our_value = ours[i];
  d.their_value = row.theirs[i];
  d.truth = row.truth[i];
  d.expected = row.local[i];
  d.ulps = ulps_between(static_cast<float>(row.local[i]), static_cast<float>(row.theirs[i]));
  d.relative_l2 = in_units(from_truth.rms(), from_truth.truth_rms());
  for (size_t j = 0; j < row.width; ++j)
    d.over += !(std::fabs(row.theirs[j] - row.local[j]) <= budget.local * local_unit) &&
              row.theirs[j] != row.local[j];
  d.nan = from_truth.nan;
  d.inf = from_truth.inf;
  return d;
}

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

}  // namespace sinkref
