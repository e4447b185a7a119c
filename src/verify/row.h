#pragma once

#include <cmath>

#include "sinkref/verify.h"

namespace sinkref {

// One row, that is one tensor at one position (attention: of one head): its unit, its budget, and
// the verdict on it.

/// What errors of a row are measured in: its rms; scores count as they are, as only differences of
/// scores matter.
double unit_of(HookPoint point, double row_rms);
/// error / unit, 0 where there is no error.
double in_units(double error, double unit);

template <class T>
double rms(const T* a, size_t width) {
  double sum = 0;
  for (size_t i = 0; i < width; ++i) sum += static_cast<double>(a[i]) * static_cast<double>(a[i]);
  return std::sqrt(sum / static_cast<double>(width));
}

/// Of a - b, over the elements that are finite in both.
double rms_between(const double* a, const double* b, size_t width);

/// What rounding was seen to do to a row, in units of the row.
struct Noise {
  double local = 0, propagated = 0;
};

/// The budgets of one tensor while a sequence runs: they hold from a position on and only grow.
class RunningBudget {
 public:
  /// `given` replaces what is derived; may be null.
  explicit RunningBudget(const Budget::Entry* given = nullptr) : given_(given) {}

  void restart() { largest_ = {}; }  ///< with another sequence
  /// Widens by the noise seen at one more position, and gives the budgets that hold there.
  Noise widen(Noise noise, size_t position);
  Budget::Entry entry() const;

 private:
  const Budget::Entry* given_;
  Noise largest_;
  Budget::Entry derived_;
};

struct RowValues {
  const double *truth, *local, *theirs;  ///< local: what their input of the step should give
  const float* ours;                     ///< the fp32 run
  size_t width;
};

/// All but sequence and token; `index` holds the element within the row.
TokenDifference judge_row(HookPoint point, const RowValues& row, Noise budget);

/// Two heads of one position as one: the details of the worse, the largest errors, all counts.
TokenDifference worse_of(const TokenDifference& a, const TokenDifference& b);

}  // namespace sinkref
