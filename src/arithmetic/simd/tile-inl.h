// Register tiles: a few rows of x against a few vectors of outputs. Every lane holds another
// output, and walks its chain in the order of number.h.

#if defined(SINKREF_SIMD_TILE_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef SINKREF_SIMD_TILE_INL_H
#undef SINKREF_SIMD_TILE_INL_H
#else
#define SINKREF_SIMD_TILE_INL_H
#endif

#include <hwy/highway.h>

#include <algorithm>
#include <type_traits>

#include "sinkref/kernels.h"

HWY_BEFORE_NAMESPACE();
namespace sinkref {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Lambdas of a loop must be part of it, or sums go through memory.
#undef SINKREF_LAMBDA
#define SINKREF_LAMBDA HWY_ATTR __attribute__((always_inline))

// tile_rows x 2 vectors of accumulators fill the register file.
#if HWY_TARGET == HWY_AVX2
inline constexpr size_t tile_rows = 6;
#else
inline constexpr size_t tile_rows = 12;
#endif

template <class T>
HWY_INLINE size_t lanes_of() {
  return hn::Lanes(hn::ScalableTag<T>());
}

/// Transposes squares of four fp32: of the rows r0 … r3 in each 128 bits, calls emit(i, column i).
template <class D, class Vector, class Emit>
HWY_INLINE void transpose_fours(D d, Vector r0, Vector r1, Vector r2, Vector r3, const Emit& emit) {
  const hn::Repartition<double, D> pairs;
  const auto low01 = hn::BitCast(pairs, hn::InterleaveLower(d, r0, r1));
  const auto low23 = hn::BitCast(pairs, hn::InterleaveLower(d, r2, r3));
  const auto high01 = hn::BitCast(pairs, hn::InterleaveUpper(d, r0, r1));
  const auto high23 = hn::BitCast(pairs, hn::InterleaveUpper(d, r2, r3));
  emit(0, hn::BitCast(d, hn::InterleaveLower(pairs, low01, low23)));
  emit(1, hn::BitCast(d, hn::InterleaveUpper(pairs, low01, low23)));
  emit(2, hn::BitCast(d, hn::InterleaveLower(pairs, high01, high23)));
  emit(3, hn::BitCast(d, hn::InterleaveUpper(pairs, high01, high23)));
}

/// The rows of a tile as they lie in a matrix: R rows `stride` apart.
template <class T>
struct PlainRows {
  const T* data;
  size_t stride;
  template <size_t R>
  HWY_INLINE T at(size_t r, size_t k) const { return data[r * stride + k]; }
};

/// The rows of a tile interleaved: all R values of one k, then those of the next.
template <class T>
struct PackedRows {
  const T* data;
  template <size_t R>
  HWY_INLINE T at(size_t r, size_t k) const { return data[k * R + r]; }
};

/// s[r] = x[r][k] · b[k], the first step of a chain. fma(x, b, 0) would give the same but for the sign
/// of a zero, which vanishes when +0 is added at the end (Sums).
template <size_t R, size_t V, class A, class Weights, class Vector>
HWY_INLINE void begin_chain(A a, size_t r, size_t k, const Weights& weights, Vector (&s)[R][V]) {
  const hn::ScalableTag<hn::TFromV<Vector>> d;
  const Vector x = hn::Set(d, a.template at<R>(r, k));
  HWY_UNROLL(4)
  for (size_t v = 0; v < V; ++v) s[r][v] = hn::Mul(x, weights[v]);
}

template <size_t V, class T, class Vector>
HWY_INLINE void load_weights(const T* b, Vector (&weights)[V]) {
  const hn::ScalableTag<T> d;
  HWY_UNROLL(4)
  for (size_t v = 0; v < V; ++v) weights[v] = hn::LoadU(d, b + v * hn::Lanes(d));
}

/// s[r][v] = fma of x[r][k] and b's values for k.
template <size_t R, size_t V, class A, class T, class Vector>
HWY_INLINE void extend_chain(A a, const T* b, size_t b_step, size_t k, Vector (&s)[R][V]) {
  const hn::ScalableTag<T> d;
  Vector weights[V];
  load_weights(b + k * b_step, weights);
  HWY_UNROLL(12)
  for (size_t r = 0; r < R; ++r) {
    const Vector x = hn::Set(d, a.template at<R>(r, k));
    HWY_UNROLL(4)
    for (size_t v = 0; v < V; ++v) s[r][v] = hn::MulAdd(x, weights[v], s[r][v]);
  }
}

/// s[r][v] = fma over k in [begin, end), from what s holds. R rows, V vectors of outputs; b holds
/// the outputs' values for k at b + k·b_step.
template <size_t R, size_t V, class A, class T, class Vector>
HWY_INLINE void extend_chains(A a, const T* b, size_t b_step, size_t begin, size_t end,
                              Vector (&s)[R][V]) {
  for (size_t k = begin; k < end; ++k) extend_chain(a, b, b_step, k, s);
}

/// The same for what is left of a whole block, k in [begin, begin + chain_block - 1). Without a
/// loop's own instructions the full tile is a twentieth faster.
template <size_t R, size_t V, class A, class T, class Vector>
HWY_INLINE void extend_block(A a, const T* b, size_t b_step, size_t begin, Vector (&s)[R][V]) {
  if constexpr (R == tile_rows && sizeof(T) == 4) {
    HWY_UNROLL(31)
    for (size_t i = 0; i < chain_block - 1; ++i) extend_chain(a, b, b_step, begin + i, s);
  } else {
    extend_chains(a, b, b_step, begin, begin + chain_block - 1, s);
  }
}

template <size_t R, size_t V, class Vector>
HWY_INLINE void clear(Vector (&s)[R][V]) {
  const hn::ScalableTag<hn::TFromV<Vector>> d;
  HWY_UNROLL(12)
  for (size_t r = 0; r < R; ++r) {
    HWY_UNROLL(4)
    for (size_t v = 0; v < V; ++v) s[r][v] = hn::Zero(d);
  }
}

/// t += s for one row, or t = s if t is fresh: holds nothing yet.
template <size_t V, class T, class Vector>
HWY_INLINE void add_chain(const Vector (&s)[V], bool fresh, T* t) {
  const hn::ScalableTag<T> d;
  HWY_UNROLL(4)
  for (size_t v = 0; v < V; ++v) {
    T* sum = t + v * hn::Lanes(d);
    hn::StoreU(fresh ? s[v] : hn::Add(hn::LoadU(d, sum), s[v]), d, sum);
  }
}

/// Nothing to do between the blocks of a tile.
struct Idle {
  HWY_INLINE void operator()() const {}
};

/// t += the chains of the blocks in [0, depth), which begins at a multiple of chain_block; row r of
/// t begins at t + r·t_step, and may be fresh (add_chain). A row's sum is stored just before its next
/// block begins: stores in one burst would cost a tenth of the speed. `between` is called once for each
/// block.
template <size_t R, size_t V, class A, class T, class Between>
HWY_INLINE void tile(A a, const T* b, size_t b_step, size_t depth, bool fresh, T* t,
                     size_t t_step, Between& between) {
  hn::Vec<hn::ScalableTag<T>> s[R][V], weights[V];
  load_weights(b, weights);
  HWY_UNROLL(12)
  for (size_t r = 0; r < R; ++r) begin_chain(a, r, 0, weights, s);
  for (size_t k = 1;;) {
    const size_t block_end = std::min(depth, (k / chain_block + 1) * chain_block);
    between();
    if (block_end - k == chain_block - 1)
      extend_block(a, b, b_step, k, s);
    else
      extend_chains(a, b, b_step, k, block_end, s);
    k = block_end;
    if (k == depth) break;
    load_weights(b + k * b_step, weights);
    HWY_UNROLL(12)
    for (size_t r = 0; r < R; ++r) {
      add_chain(s[r], fresh, t + r * t_step);
      begin_chain(a, r, k, weights, s);
    }
    fresh = false;
    ++k;
  }
  HWY_UNROLL(12)
  for (size_t r = 0; r < R; ++r) add_chain(s[r], fresh, t + r * t_step);
}

/// Calls use(R) with R = rows, 1 … tile_rows, as a constant: its loops over a tile's rows are unrolled.
template <class Use>
HWY_INLINE void with_height(size_t rows, const Use& use) {
  switch (rows) {
#define SINKREF_HEIGHT(R) \
  case R: return use(std::integral_constant<size_t, R>());
    SINKREF_HEIGHT(1)
    SINKREF_HEIGHT(2)
    SINKREF_HEIGHT(3)
    SINKREF_HEIGHT(4)
    SINKREF_HEIGHT(5)
    SINKREF_HEIGHT(6)
#if HWY_TARGET != HWY_AVX2
    SINKREF_HEIGHT(7)
    SINKREF_HEIGHT(8)
    SINKREF_HEIGHT(9)
    SINKREF_HEIGHT(10)
    SINKREF_HEIGHT(11)
    SINKREF_HEIGHT(12)
#endif
#undef SINKREF_HEIGHT
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace sinkref
HWY_AFTER_NAMESPACE();

#endif  // SINKREF_SIMD_TILE_INL_H
