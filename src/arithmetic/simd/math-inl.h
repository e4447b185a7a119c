// exp, softmax and SiLU in vectors: number.h step by step.

#if defined(SINKREF_SIMD_MATH_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef SINKREF_SIMD_MATH_INL_H
#undef SINKREF_SIMD_MATH_INL_H
#else
#define SINKREF_SIMD_MATH_INL_H
#endif

#include <hwy/highway.h>

#include <algorithm>
#include <limits>

#include "sinkref/number.h"

HWY_BEFORE_NAMESPACE();
namespace sinkref {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

/// 1 + r + r²·q(r), exp_spec's polynomial.
template <class D, class V = hn::Vec<D>>
HWY_INLINE V exp_polynomial(D d, V r) {
  using C = ExpConstants<hn::TFromD<D>>;
  V q = hn::Set(d, C::q.back());
  for (size_t i = C::q.size() - 1; i-- > 0;) q = hn::MulAdd(q, r, hn::Set(d, C::q[i]));
  return hn::Add(hn::Set(d, hn::TFromD<D>(1)), hn::MulAdd(hn::Mul(r, r), q, r));
}

/// x - n·ln 2
template <class D, class V = hn::Vec<D>>
HWY_INLINE V exp_remainder(D d, V x, V n) {
  using C = ExpConstants<hn::TFromD<D>>;
  const V r = hn::MulAdd(n, hn::Set(d, -C::ln2_high), x);
  return hn::MulAdd(n, hn::Set(d, -C::ln2_low), r);
}

/// exp_spec of any x.
template <class D, class V = hn::Vec<D>>
HWY_INLINE V exp_any(D d, V x) {
  using C = ExpConstants<hn::TFromD<D>>;
  const hn::Rebind<typename C::Int, D> di;
  const V original = x;
  // 0 is chosen, not computed: a product that underflows costs a hundred times as much as another.
  const auto vanishes = hn::Lt(x, hn::Set(d, C::lowest));
  x = hn::IfThenZeroElse(vanishes, x);
  x = hn::IfThenElse(hn::Gt(x, hn::Set(d, C::highest)), hn::Set(d, C::highest), x);
  const V n = hn::Round(hn::Mul(x, hn::Set(d, C::log2e)));
  const V e = exp_polynomial(d, exp_remainder(d, x, n));
  const auto power = [&](auto exponent) HWY_ATTR {
    return hn::BitCast(d, hn::ShiftLeft<C::mantissa_bits>(
                              hn::Add(exponent, hn::Set(di, C::exponent_bias))));
  };
  const auto whole = hn::ConvertTo(di, n);
  const auto half = hn::ShiftRight<1>(whole);
  const V scaled = hn::IfThenZeroElse(vanishes, hn::Mul(hn::Mul(e, power(half)), power(hn::Sub(whole, half))));
  return hn::IfThenElse(hn::IsNaN(original), original, scaled);
}

/// exp_spec where the result is a normal number. Adding to `rounder` rounds to a whole n, which the sum's
/// last bits then hold; it goes to the exponent of e, for the product with 2^n is exact.
template <class D, class V = hn::Vec<D>>
HWY_INLINE V exp_normal(D d, V x) {
  using C = ExpConstants<hn::TFromD<D>>;
  const hn::Rebind<typename C::Int, D> di;
  const V rounder = hn::Set(d, C::rounder);
  const V sum = hn::Add(hn::Mul(x, hn::Set(d, C::log2e)), rounder);
  const V e = exp_polynomial(d, exp_remainder(d, x, hn::Sub(sum, rounder)));
  return hn::BitCast(d, hn::Add(hn::BitCast(di, e), hn::ShiftLeft<C::mantissa_bits>(hn::BitCast(di, sum))));
}

/// exp_spec of every lane.
template <class D, class V = hn::Vec<D>>
HWY_INLINE V exp_lanes(D d, V x) {
  using C = ExpConstants<hn::TFromD<D>>;
  const auto normal = hn::Le(hn::Abs(x), hn::Set(d, C::normal));
  return HWY_LIKELY(hn::AllTrue(d, normal)) ? exp_normal(d, x) : exp_any(d, x);
}

/// The virtual lanes of a sum in double, in vectors.
struct LaneSums {
  static constexpr size_t most = sum_lanes / 2;  // vectors of double on the narrowest target
  hn::Vec<hn::ScalableTag<double>> sum[most];

  HWY_INLINE LaneSums() {
    const hn::ScalableTag<double> d;
    HWY_UNROLL(8)
    for (size_t v = 0; v < most; ++v) sum[v] = hn::Zero(d);
  }
  /// Adds values[0, sum_lanes), one to each lane.
  template <class T>
  HWY_INLINE void add(const T* values) {
    const hn::ScalableTag<double> d;
    const size_t lanes = hn::Lanes(d), vectors = sum_lanes / lanes;
    HWY_UNROLL(8)
    for (size_t v = 0; v < vectors; ++v) {
      const T* from = values + v * lanes;
      if constexpr (sizeof(T) == 4)
        sum[v] = hn::Add(sum[v], hn::PromoteTo(d, hn::LoadU(hn::Rebind<float, decltype(d)>(), from)));
      else
        sum[v] = hn::Add(sum[v], hn::LoadU(d, from));
    }
  }
  HWY_INLINE double result() const {
    const hn::ScalableTag<double> d;
    const size_t lanes = hn::Lanes(d);
    std::array<double, sum_lanes> lane;
    for (size_t v = 0; v < sum_lanes / lanes; ++v) hn::StoreU(sum[v], d, lane.data() + v * lanes);
    return add_lanes(lane);
  }
};

/// to[i] = exp(from[i] - largest) for one block of sum_lanes, and their sums.
template <class T>
HWY_INLINE void exp_block(const T* from, T largest, T* to, LaneSums& sums) {
  const hn::ScalableTag<T> d;
  for (size_t i = 0; i < sum_lanes; i += hn::Lanes(d))
    hn::StoreU(exp_lanes(d, hn::Sub(hn::LoadU(d, from + i), hn::Set(d, largest))), d, to + i);
  sums.add(to);
}

/// The largest of whole blocks of sum_lanes and `least`; NaN is none. Two chains, as one would wait for itself.
template <class T>
HWY_INLINE T largest_of(const T* from, const T* end, T least) {
  const hn::ScalableTag<T> d;
  const size_t lanes = hn::Lanes(d);
  hn::Vec<decltype(d)> most[2] = {hn::Set(d, least), hn::Set(d, least)};
  const auto take = [&](const T* at, auto& largest) HWY_ATTR {
    const auto x = hn::LoadU(d, at);
    largest = hn::IfThenElse(hn::Gt(x, largest), x, largest);
  };
  for (; from + 2 * lanes <= end; from += 2 * lanes) {
    take(from, most[0]);
    take(from + lanes, most[1]);
  }
  if (from != end) take(from, most[0]);
  return hn::GetLane(hn::MaxOfLanes(d, hn::IfThenElse(hn::Gt(most[1], most[0]), most[1], most[0])));
}

template <class T>
void softmax(T* row, size_t keys, Visible visible, Softmax variant) {
  const hn::ScalableTag<T> d;
  // Whole blocks around what is visible; beyond them all is 0, which changes no sum.
  const size_t begin = visible.begin / sum_lanes * sum_lanes;
  const size_t end = (visible.end + sum_lanes - 1) / sum_lanes * sum_lanes;
  const T unseen = -std::numeric_limits<T>::infinity();  // exp of it is exactly 0
  std::fill(row, row + begin, T(0));
  std::fill(row + begin, row + visible.begin, unseen);
  std::fill(row + visible.end, row + end, unseen);
  if (end < keys) std::fill(row + end, row + keys, T(0));

  const T largest = largest_of(row + begin, row + end, variant == Softmax::one ? T(0) : unseen);

  LaneSums sums;
  for (size_t i = begin; i < end; i += sum_lanes) exp_block(row + i, largest, row + i, sums);
  double sum = sums.result();
  if (variant == Softmax::one) sum += static_cast<double>(exp_spec(-largest));
  const auto inverse = hn::Set(d, static_cast<T>(1.0 / sum));
  for (size_t i = begin; i < end; i += hn::Lanes(d))
    hn::StoreU(hn::Mul(hn::LoadU(d, row + i), inverse), d, row + i);
}

template <class T>
T softmax_largest(const T* row, size_t keys, T largest) {
  T exps[sum_lanes], last[sum_lanes];
  LaneSums sums;
  const size_t whole = keys / sum_lanes * sum_lanes;
  for (size_t i = 0; i < whole; i += sum_lanes) exp_block(row + i, largest, exps, sums);
  std::fill(last, last + sum_lanes, -std::numeric_limits<T>::infinity());
  std::copy(row + whole, row + keys, last);
  exp_block(last, largest, exps, sums);
  return static_cast<T>(1.0 / sums.result());
}

template <class T>
HWY_INLINE void silu_mul_lanes(const T* gate, const T* up, T* post) {
  const hn::ScalableTag<T> d;
  const auto g = hn::LoadU(d, gate);
  const auto bottom = hn::Add(hn::Set(d, T(1)), exp_lanes(d, hn::Neg(g)));
  hn::StoreU(hn::Mul(hn::Div(g, bottom), hn::LoadU(d, up)), d, post);
}

template <class T>
void silu_mul(const T* gate, const T* up, size_t n, T* post) {
  const size_t lanes = hn::Lanes(hn::ScalableTag<T>());
  size_t i = 0;
  for (; i + lanes <= n; i += lanes) silu_mul_lanes(gate + i, up + i, post + i);
  for (; i < n; ++i) post[i] = gate[i] / (T(1) + exp_spec(-gate[i])) * up[i];
}

}  // namespace HWY_NAMESPACE
}  // namespace sinkref
HWY_AFTER_NAMESPACE();

#endif  // SINKREF_SIMD_MATH_INL_H
