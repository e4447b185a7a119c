#pragma once

// What a number must be able to do for definition.h, and the order of every sum. For float this is
// the arithmetic itself, bit for bit; for double it is the truth that errors are measured against.
// A further number (a ball, say, with a proven radius) specialises Number and needs nothing else.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <optional>

namespace sinkref {

/// Raised whenever a bit of any result changes; the reason goes into reference_outputs/README.md.
inline constexpr int arithmetic_version = 2;

/// The lengths of a chain's blocks and spans: part of the arithmetic, never tuned to a machine. Two
/// levels keep the error small at any length.
inline constexpr size_t chain_block = 32;
inline constexpr size_t chain_span = 512;

/// Virtual lanes of every other sum (RMSNorm, softmax).
inline constexpr size_t sum_lanes = 16;

/// Attention without (standard) or with a virtual key of score 0 and value 0 (softmax_1).
enum class Softmax { standard, one };

/// Key positions [begin, end) that one query may see.
struct Visible {
  size_t begin;
  size_t end;
  bool holds(size_t key) const { return begin <= key && key < end; }
};

/// The query at `position` sees itself and the keys before it, at most `window` of them: causal masking
/// and Mistral's sliding window (transformers' masking_utils.py).
inline Visible visible_to(size_t position, std::optional<size_t> window) {
  const size_t end = position + 1;
  return {window && end > *window ? end - *window : 0, end};
}

/// The keys that each row of a step sees, where `past` positions come before the step.
struct Mask {
  size_t past;
  std::optional<size_t> window;
  Visible operator()(size_t row) const { return visible_to(past + row, window); }
};

/// The score of a key that is not seen.
inline constexpr double masked = -std::numeric_limits<double>::infinity();

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

/// exp(x) within 1 ulp, denormal results included; NaN stays the same NaN. Explicit fused
/// multiply-adds: no math library and no compiler has a say in the bits.
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

/// cos and sin of an fp32 angle, each rounded to fp32 from a double good to 2^-52, as Hugging Face's
/// tables hold them (LlamaRotaryEmbedding).
struct CosSin {
  float cos;
  float sin;
};
CosSin cos_sin_spec(float angle);

/// The operations of float and double besides +, -, ·, / and <.
template <class N>
struct Number {
  using Wide = double;  ///< what the sums over lanes run in
  static Wide wide(N x) { return static_cast<double>(x); }
  static N narrow(Wide x) { return static_cast<N>(x); }
  static Wide sqrt(Wide x) { return std::sqrt(x); }
  static N fma(N a, N b, N c) { return std::fma(a, b, c); }
  static N exp(N x) { return exp_spec(x); }
};

/// Σ x(i)·w(i) over begin <= i < end, every product of matrices and vectors:
///     for each span of 512 consecutive i:  for each block of 32 in it:
///         s = 0;  for i in block: s = fma(x(i), w(i), s);   then t += s;   at the span's end total += t
/// Blocks and spans begin at multiples of their length, whatever `begin` is.
template <class N, class X, class W>
N chain(size_t begin, size_t end, const X& x, const W& w) {
  N total = N(0);
  for (size_t span = begin / chain_span * chain_span; span < end; span += chain_span) {
    N t = N(0);
    const size_t span_end = std::min(end, span + chain_span);
    for (size_t block = span; block < span_end; block += chain_block) {
      N s = N(0);
      const size_t block_end = std::min(span_end, block + chain_block);
      for (size_t i = std::max(begin, block); i < block_end; ++i)
        s = Number<N>::fma(x(i), w(i), s);
      t = t + s;
    }
    total = total + t;
  }
  return total;
}

/// How rows follow one another. A number that is dear to compute specialises it to share them out among threads.
template <class N>
struct Rows {
  template <class F>
  static void each(size_t count, const F& f) {
    for (size_t p = 0; p < count; ++p) f(p);
  }
};

/// f(p) for each row p; no row reads what another writes.
template <class N, class F>
void each_row(size_t count, const F& f) {
  Rows<N>::each(count, f);
}

/// What softmax may subtract for x, since any number will do: of a number with a radius its middle alone,
/// whose radius would otherwise count twice.
template <class N>
N centre(N x) {
  return x;
}

/// The fixed tree over the virtual lanes of a sum: halves onto halves.
template <class Wide>
Wide add_lanes(std::array<Wide, sum_lanes> lane) {
  for (size_t half = sum_lanes / 2; half > 0; half /= 2)
    for (size_t i = 0; i < half; ++i) lane[i] = lane[i] + lane[i + half];
  return lane[0];
}

/// Σ term(i) over begin <= i < end: term i goes to lane i mod 16, then the lanes are added.
template <class N, class Term>
typename Number<N>::Wide lane_sum(size_t begin, size_t end, const Term& term) {
  using Wide = typename Number<N>::Wide;
  std::array<Wide, sum_lanes> lane;
  lane.fill(Wide(0));
  for (size_t i = begin; i < end; ++i) lane[i % sum_lanes] = lane[i % sum_lanes] + term(i);
  return add_lanes(lane);
}

}  // namespace sinkref
