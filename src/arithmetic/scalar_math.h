#pragma once

// exp, cos and sin as the arithmetic defines them: reduction and polynomial with explicit fused
// multiply-adds, so that no math library and no compiler has a say in the bits. The SIMD kernels
// repeat exp step by step.

#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "sinkref/kernels.h"

namespace sinkref {

/// Constants of exp. exp(x) = 2^n · (1 + r + r²·q(r)),  n = rint(x / ln 2),  r = x - n·ln 2,
/// with q a minimax polynomial on |r| <= ln 2 / 2.
template <class T>
struct ExpConstants;

template <>
struct ExpConstants<float> {
  using Int = int32_t;
  static constexpr float lowest = -104.0f, highest = 89.0f;  // beyond: 0 and infinity
  static constexpr float normal = 87.0f;     // within ±normal, exp is a normal number
  static constexpr float rounder = 0x1.8p23f;  // to which whole numbers alone can be added exactly
  static constexpr float log2e = 0x1.715476p+0f;
  static constexpr float ln2_high = 0x1.62e43p-1f, ln2_low = -0x1.05c61p-29f;
  static constexpr std::array<float, 6> q = {0x1p-1f,        0x1.555556p-3f,  0x1.5554eap-5f,
                                             0x1.1110ep-7f,  0x1.6d4324p-10f, 0x1.a124f2p-13f};
  static constexpr int mantissa_bits = 23, exponent_bias = 127;
};

template <>
struct ExpConstants<double> {
  using Int = int64_t;
  static constexpr double lowest = -746.0, highest = 710.0;
  static constexpr double normal = 708.0, rounder = 0x1.8p52;
  static constexpr double log2e = 0x1.71547652b82fep+0;
  static constexpr double ln2_high = 0x1.62e42fefa39efp-1, ln2_low = 0x1.abc9e3b39803fp-56;
  static constexpr std::array<double, 12> q = {
      0x1p-1,                 0x1.5555555555555p-3,  0x1.5555555555557p-5,  0x1.1111111111111p-7,
      0x1.6c16c16c15a68p-10,  0x1.a01a01a0196acp-13, 0x1.a01a01a9e991bp-16, 0x1.71de3a5aa7bb7p-19,
      0x1.27e4d41966f2fp-22,  0x1.ae642c82e33d5p-26, 0x1.1f7f2776cfaf2p-29, 0x1.61bfaa228dde5p-33};
  static constexpr int mantissa_bits = 52, exponent_bias = 1023;
};

/// 2^n for n within the normal range.
template <class T>
T power_of_two(typename ExpConstants<T>::Int n) {
  using C = ExpConstants<T>;
  const typename C::Int bits = (n + C::exponent_bias) << C::mantissa_bits;
  T value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

/// exp(x) within 1 ulp, denormal results included; NaN stays the same NaN.
template <class T>
T exp_spec(T x) {
  using C = ExpConstants<T>;
  if (std::isnan(x)) return x;
  x = x < C::lowest ? C::lowest : x;
  x = x > C::highest ? C::highest : x;
  const T n = std::nearbyint(x * C::log2e);
  T r = std::fma(n, -C::ln2_high, x);
  r = std::fma(n, -C::ln2_low, r);
  T q = C::q.back();
  for (size_t i = C::q.size() - 1; i-- > 0;) q = std::fma(q, r, C::q[i]);
  const T e = T(1) + std::fma(r * r, q, r);
  // In two steps: 2^n itself may be too small or too large to be a number.
  const auto whole = static_cast<typename C::Int>(n);
  const auto half = whole >> 1;
  return e * power_of_two<T>(half) * power_of_two<T>(whole - half);
}

/// silu(g)·u with silu(g) = g / (1 + exp(-g)).
template <class T>
T silu_mul_spec(T gate, T up) {
  return gate / (T(1) + exp_spec(-gate)) * up;
}

/// The fixed tree over the virtual lanes of a sum: halves onto halves.
inline double add_lanes(std::array<double, sum_lanes> lane) {
  for (size_t half = sum_lanes / 2; half > 0; half /= 2)
    for (size_t i = 0; i < half; ++i) lane[i] += lane[i + half];
  return lane[0];
}

/// cos and sin of an fp32 angle, each rounded to fp32 from a double good to 2^-52.
struct CosSin {
  float cos;
  float sin;
};
CosSin cos_sin_spec(float angle);

}  // namespace sinkref
