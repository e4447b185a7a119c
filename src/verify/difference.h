#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>

namespace sinkref {

/// How far one row lies from its truth. Everything that compares (verify, goldens) goes through here.
struct RowDifference {
  double error_squares = 0;  ///< Σ (theirs - truth)²; infinite where one of them is not a number
  double truth_squares = 0;
  size_t count = 0;          ///< elements that count: not those masked (-inf) on both sides
  double max_abs = 0;        ///< NaN where either is NaN
  size_t index = 0;          ///< of max_abs
  size_t nan = 0, inf = 0;   ///< in theirs, where the truth is finite

  double rms() const { return count == 0 ? 0 : std::sqrt(error_squares / static_cast<double>(count)); }
  double truth_rms() const {
    return count == 0 ? 0 : std::sqrt(truth_squares / static_cast<double>(count));
  }
};

RowDifference row_difference(const double* truth, const double* theirs, size_t width);

/// Representable fp32 numbers from a to b (0 for equal bits or for +0 and -0), infinite if either
/// is NaN.
double ulps_between(float a, float b);

}  // namespace sinkref
