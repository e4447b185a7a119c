#include "arithmetic/log_softmax.h"

#include <cmath>

namespace sinkref {

/// ln x = e·ln 2 + 2·artanh(s) with x = 2^e·m, √½ <= m < √2, s = (m - 1)/(m + 1), |s| < 0.172:
/// the series s + s³/3 + s⁵/5 + … to s²³, whose remainder is below 2^-60 of it.
double natural_log(double x) {
  constexpr double ln2_high = 0x1.62e42fefa39efp-1, ln2_low = 0x1.abc9e3b39803fp-56;
  int exponent = 0;
  double m = std::frexp(x, &exponent);
  if (m < 0x1.6a09e667f3bcdp-1) {
    m *= 2;
    --exponent;
  }
  const double s = (m - 1) / (m + 1), square = s * s;
  double series = 0;
  for (int k = 23; k >= 3; k -= 2) series = std::fma(series, square, 1.0 / k);
  // 2s + 2s³(1/3 + s²/5 + …), the small part first.
  const double e = exponent, small = std::fma(e, ln2_low, 2 * s * square * series);
  return std::fma(e, ln2_high, 2 * s + small);
}

template <class T>
LogSoftmax log_softmax(const Kernels<T>& kernels, std::span<const T> logits) {
  LogSoftmax result;
  result.argmax = argmax<T>(logits);
  const T largest = logits[result.argmax];
  result.max = static_cast<double>(largest);
  result.log_p_max =
      natural_log(static_cast<double>(kernels.softmax_largest(logits.data(), logits.size(), largest)));
  return result;
}

template LogSoftmax log_softmax<float>(const Kernels<float>&, std::span<const float>);
template LogSoftmax log_softmax<double>(const Kernels<double>&, std::span<const double>);

}  // namespace sinkref
