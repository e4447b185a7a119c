// exp, softmax and SiLU in vectors: scalar_math.h step by step.

#if defined(SINKREF_SIMD_MATH_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef SINKREF_SIMD_MATH_INL_H
#undef SINKREF_SIMD_MATH_INL_H
#else
#define SINKREF_SIMD_MATH_INL_H
#endif

#include <hwy/highway.h>

#include <algorithm>
#include <limits>

#include "kernels/scalar_math.h"

HWY_BEFORE_NAMESPACE();
namespace sinkref {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

/// exp_spec of every lane.
template <class D, class V = hn::Vec<D>>
HWY_INLINE V exp_lanes(D d, V x) {
  using T = hn::TFromD<D>;
  using C = ExpConstants<T>;
  const hn::Rebind<typename C::Int, D> di;
  const V original = x;
  // 0 is chosen, not computed: a product that underflows costs a hundred times as much as another.
  const auto vanishes = hn::Lt(x, hn::Set(d, C::lowest));
  x = hn::IfThenZeroElse(vanishes, x);
  x = hn::IfThenElse(hn::Gt(x, hn::Set(d, C::highest)), hn::Set(d, C::highest), x);
  const V n = hn::Round(hn::Mul(x, hn::Set(d, C::log2e)));
  V r = hn::MulAdd(n, hn::Set(d, -C::ln2_high), x);
  r = hn::MulAdd(n, hn::Set(d, -C::ln2_low), r);
  V q = hn::Set(d, C::q.back());
  for (size_t i = C::q.size() - 1; i-- > 0;) q = hn::MulAdd(q, r, hn::Set(d, C::q[i]));
  const V e = hn::Add(hn::Set(d, T(1)), hn::MulAdd(hn::Mul(r, r), q, r));
  const auto power = [&](auto exponent) HWY_ATTR {
    return hn::BitCast(d, hn::ShiftLeft<C::mantissa_bits>(
                              hn::Add(exponent, hn::Set(di, C::exponent_bias))));
  };
  const auto whole = hn::ConvertTo(di, n);
  const auto half = hn::ShiftRight<1>(whole);
  const V scaled = hn::IfThenZeroElse(vanishes, hn::Mul(hn::Mul(e, power(half)), power(hn::Sub(whole, half))));
  return hn::IfThenElse(hn::IsNaN(original), original, scaled);
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

template <class T>
void softmax(T* row, size_t keys, Visible visible, Softmax variant) {
  const hn::ScalableTag<T> d;
  const size_t lanes = hn::Lanes(d);
  // Whole blocks around what is visible; beyond them all is 0, which changes no sum.
  const size_t begin = visible.begin / sum_lanes * sum_lanes;
  const size_t end = (visible.end + sum_lanes - 1) / sum_lanes * sum_lanes;
  const T unseen = -std::numeric_limits<T>::infinity();  // exp of it is exactly 0
  std::fill(row, row + begin, T(0));
  std::fill(row + begin, row + visible.begin, unseen);
  std::fill(row + visible.end, row + end, unseen);
  if (end < keys) std::fill(row + end, row + keys, T(0));

  auto most = hn::Set(d, variant == Softmax::one ? T(0) : unseen);
  for (size_t i = begin; i < end; i += lanes) {
    const auto x = hn::LoadU(d, row + i);
    most = hn::IfThenElse(hn::Gt(x, most), x, most);
  }
  const T largest = hn::GetLane(hn::MaxOfLanes(d, most));

  LaneSums sums;
  for (size_t i = begin; i < end; i += sum_lanes) exp_block(row + i, largest, row + i, sums);
  double sum = sums.result();
  if (variant == Softmax::one) sum += static_cast<double>(exp_spec(-largest));
  const auto inverse = hn::Set(d, static_cast<T>(1.0 / sum));
  for (size_t i = begin; i < end; i += lanes)
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
  for (; i < n; ++i) post[i] = silu_mul_spec(gate[i], up[i]);
}

}  // namespace HWY_NAMESPACE
}  // namespace sinkref
HWY_AFTER_NAMESPACE();

#endif  // SINKREF_SIMD_MATH_INL_H
