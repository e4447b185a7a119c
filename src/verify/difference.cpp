#include "verify/difference.h"

#include <bit>
#include <limits>

namespace sinkref {

RowDifference row_difference(const double* truth, const double* theirs, size_t width) {
  constexpr double infinite = std::numeric_limits<double>::infinity();
  RowDifference row;
  for (size_t i = 0; i < width; ++i) {
    if (std::isinf(truth[i]) && truth[i] == theirs[i]) continue;  // masked on both sides
    const double difference = std::fabs(theirs[i] - truth[i]);
    row.error_squares += std::isfinite(difference) ? difference * difference : infinite;
    row.truth_squares += truth[i] * truth[i];
    ++row.count;
    if (std::isfinite(truth[i])) {
      row.nan += std::isnan(theirs[i]);
      row.inf += std::isinf(theirs[i]);
    }
    if (!(difference <= row.max_abs) && !std::isnan(row.max_abs)) {
      row.max_abs = difference;
      row.index = i;
    }
  }
  return row;
}

double ulps_between(float a, float b) {
  if (std::isnan(a) || std::isnan(b)) return std::numeric_limits<double>::infinity();
  // Negative numbers mirrored, so that neighbours differ by one across zero too.
  const auto ordered = [](float value) {
    const int64_t bits = std::bit_cast<int32_t>(value);
    return bits < 0 ? int64_t(std::numeric_limits<int32_t>::min()) - bits : bits;
  };
  return std::fabs(static_cast<double>(ordered(a) - ordered(b)));
}

}  // namespace sinkref
