// Weights from the file to vectors: rows of any stored type are widened and transposed, so that a
// vector holds one column k of as many weight rows as it has lanes.

#if defined(SINKREF_SIMD_WEIGHTS_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef SINKREF_SIMD_WEIGHTS_INL_H
#undef SINKREF_SIMD_WEIGHTS_INL_H
#else
#define SINKREF_SIMD_WEIGHTS_INL_H
#endif

#include <hwy/highway.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "arithmetic/simd/tile-inl.h"
#include "arithmetic/sums.h"
#include "sinkref/kernels.h"

HWY_BEFORE_NAMESPACE();
namespace sinkref {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

inline constexpr size_t slab = 256;  // k at a time: whole blocks of every stored type

/// As many weight rows as a vector has lanes, from one column on.
template <class From>
struct WeightRows {
  const From* data;
  size_t stride;  ///< of data, from row to row

  static constexpr size_t block = 1;                    ///< columns that lie in one From
  static constexpr size_t columns = 16 / sizeof(From);  ///< transposed at a time
};

/// A block of Q4_0 or Q4_1; see dequantize.cpp.
template <bool with_minimum>
struct NibbleBlock {
  std::byte bytes[with_minimum ? 20 : 18];
};
template <bool with_minimum>
struct WeightRows<NibbleBlock<with_minimum>> {
  const NibbleBlock<with_minimum>* data;
  size_t stride;

  static constexpr size_t block = 32, columns = block;
};

/// One vector whose blocks of 128 bits are read from every `step`-th row.
template <class D>
HWY_INLINE hn::Vec<D> load_blocks(D d, const hn::TFromD<D>* from, size_t step) {
  constexpr size_t blocks = hn::MaxLanes(D()) * sizeof(hn::TFromD<D>) / 16;
  if constexpr (blocks == 1) {
    return hn::LoadU(d, from);
  } else {
    const hn::Half<D> half;
    return hn::Combine(d, load_blocks(half, from + blocks / 2 * step, step),
                       load_blocks(half, from, step));
  }
}

/// Calls emit(i, column k + i) for i < 4 of fp32 rows.
template <class Emit>
HWY_INLINE void columns(WeightRows<float> rows, size_t k, const Emit& emit) {
  const hn::ScalableTag<float> d;
  const float* from = rows.data + k;
  const size_t step = 4 * rows.stride;
  transpose_fours(d, load_blocks(d, from, step), load_blocks(d, from + rows.stride, step),
                  load_blocks(d, from + 2 * rows.stride, step), load_blocks(d, from + 3 * rows.stride, step), emit);
}

/// Calls emit(i, column k + i) for i < 8 of rows stored in 16 bits (fp16 or bf16).
template <class Half, class Emit>
HWY_INLINE void columns(WeightRows<Half> rows, size_t k, const Emit& emit) {
  const hn::ScalableTag<float> d;
  const hn::Rebind<Half, decltype(d)> stored;
  const hn::Rebind<uint16_t, decltype(d)> d16;  // a block of 128 bits for every 8 rows
  const hn::Repartition<uint32_t, decltype(d16)> d32;
  const hn::Repartition<uint64_t, decltype(d16)> d64;
  const auto row = [&](size_t i) SINKREF_LAMBDA {
    return load_blocks(d16, reinterpret_cast<const uint16_t*>(rows.data) + i * rows.stride + k,
                       8 * rows.stride);
  };
  const auto widened = [&](size_t i, hn::Vec<decltype(d64)> column) SINKREF_LAMBDA {
    emit(i, hn::PromoteTo(d, hn::BitCast(stored, column)));
  };
  const auto r0 = row(0), r1 = row(1), r2 = row(2), r3 = row(3);
  const auto r4 = row(4), r5 = row(5), r6 = row(6), r7 = row(7);
  // Pairs of rows, then fours, then eights; first the lower four columns, then the upper.
  const auto four = [&](size_t i, auto r01, auto r23, auto r45, auto r67) SINKREF_LAMBDA {
    const auto a = hn::BitCast(d64, hn::InterleaveLower(d32, r01, r23));
    const auto b = hn::BitCast(d64, hn::InterleaveUpper(d32, r01, r23));
    const auto c = hn::BitCast(d64, hn::InterleaveLower(d32, r45, r67));
    const auto e = hn::BitCast(d64, hn::InterleaveUpper(d32, r45, r67));
    widened(i, hn::InterleaveLower(d64, a, c));
    widened(i + 1, hn::InterleaveUpper(d64, a, c));
    widened(i + 2, hn::InterleaveLower(d64, b, e));
    widened(i + 3, hn::InterleaveUpper(d64, b, e));
  };
  const auto low = [&](auto a, auto b) SINKREF_LAMBDA {
    return hn::BitCast(d32, hn::InterleaveLower(d16, a, b));
  };
  const auto high = [&](auto a, auto b) SINKREF_LAMBDA {
    return hn::BitCast(d32, hn::InterleaveUpper(d16, a, b));
  };
  four(0, low(r0, r1), low(r2, r3), low(r4, r5), low(r6, r7));
  four(4, high(r0, r1), high(r2, r3), high(r4, r5), high(r6, r7));
}

/// Turns rows of 16 bytes, one per lane, into columns: out[j·rows + i] = v[i]'s byte j. Each round is a
/// perfect shuffle of all bytes, so that log2(rows) of them move a row's number behind the column's.
template <size_t rows, class Vector>
HWY_INLINE void store_byte_columns(Vector (&v)[rows], uint8_t* out) {
  const hn::FixedTag<uint8_t, 16> d;
  for (size_t round = 1; round < rows; round *= 2) {
    Vector next[rows];
    HWY_UNROLL(8)
    for (size_t i = 0; i < rows / 2; ++i) {
      next[2 * i] = hn::InterleaveLower(d, v[i], v[i + rows / 2]);
      next[2 * i + 1] = hn::InterleaveUpper(d, v[i], v[i + rows / 2]);
    }
    HWY_UNROLL(16)
    for (size_t i = 0; i < rows; ++i) v[i] = next[i];
  }
  HWY_UNROLL(16)
  for (size_t i = 0; i < rows; ++i) hn::Store(v[i], d, out + 16 * i);
}

/// Calls emit(i, column k + i) for i < 32 of rows in blocks of nibbles: d·(q - 8), or d·q + m, rounded
/// where dequantize.cpp rounds.
template <bool with_minimum, class Emit>
HWY_INLINE void columns(WeightRows<NibbleBlock<with_minimum>> rows, size_t k, const Emit& emit) {
  const hn::ScalableTag<float> d;
  const hn::RebindToSigned<decltype(d)> ints;
  const hn::Rebind<uint8_t, decltype(d)> bytes;
  const hn::Rebind<hwy::float16_t, decltype(d)> halves;
  const hn::FixedTag<uint8_t, 16> d16;
  constexpr size_t lanes = hn::MaxLanes(d), header = with_minimum ? 4 : 2;
  uint16_t scale[lanes], minimum[lanes];
  hn::Vec<decltype(d16)> v[lanes];
  alignas(16) uint8_t nibbles[16 * lanes];
  HWY_UNROLL(16)
  for (size_t i = 0; i < lanes; ++i) {
    const std::byte* block = rows.data[i * rows.stride + k / rows.block].bytes;
    std::memcpy(&scale[i], block, 2);
    if constexpr (with_minimum) std::memcpy(&minimum[i], block + 2, 2);
    v[i] = hn::LoadU(d16, reinterpret_cast<const uint8_t*>(block) + header);
  }
  store_byte_columns<lanes>(v, nibbles);
  const auto widened = [&](const uint16_t* from) SINKREF_LAMBDA {
    return hn::PromoteTo(d, hn::LoadU(halves, reinterpret_cast<const hwy::float16_t*>(from)));
  };
  const auto scales = widened(scale);
  auto minima = hn::Zero(d);
  if constexpr (with_minimum) minima = widened(minimum);
  const auto column = [&](auto q) SINKREF_LAMBDA {
    const auto whole = hn::PromoteTo(ints, q);
    if constexpr (with_minimum) return hn::Add(hn::Mul(scales, hn::ConvertTo(d, whole)), minima);
    else return hn::Mul(scales, hn::ConvertTo(d, hn::Sub(whole, hn::Set(ints, 8))));
  };
  HWY_UNROLL(16)
  for (size_t j = 0; j < 16; ++j)
    emit(j, column(hn::And(hn::LoadU(bytes, nibbles + j * lanes), hn::Set(bytes, 15))));
  HWY_UNROLL(16)
  for (size_t j = 0; j < 16; ++j)
    emit(16 + j, column(hn::ShiftRight<4>(hn::LoadU(bytes, nibbles + j * lanes))));
}

/// Calls use(k, column) for k in [begin, end).
template <class From, class Use>
HWY_INLINE void for_columns(WeightRows<From> rows, size_t begin, size_t end, const Use& use) {
  constexpr size_t step = WeightRows<From>::columns;
  size_t k = begin;
  for (; k + step <= end; k += step)
    columns(rows, k, [&](size_t i, auto column) SINKREF_LAMBDA { use(k + i, column); });
  if constexpr (sizeof(From) == 4) {
    const hn::ScalableTag<float> d;
    for (; k < end; ++k) {
      float column[hn::MaxLanes(d)];
      for (size_t i = 0; i < hn::Lanes(d); ++i) column[i] = rows.data[i * rows.stride + k];
      use(k, hn::LoadU(d, column));
    }
  }
}

/// out[k·step + i] = row i's value at k.
template <class From>
HWY_INLINE void store_columns(WeightRows<From> rows, size_t depth, float* out, size_t step) {
  const hn::ScalableTag<float> d;
  for_columns(rows, 0, depth, [&](size_t k, auto column) SINKREF_LAMBDA {
    hn::StoreU(column, d, out + k * step);
  });
}

/// s[r] = fma of column k, for R rows of x.
template <size_t R, class Vector>
HWY_INLINE void step_chains(const float* x, size_t x_step, size_t k, Vector column, Vector (&s)[R]) {
  const hn::ScalableTag<float> d;
  HWY_UNROLL(3)
  for (size_t r = 0; r < R; ++r) s[r] = hn::MulAdd(hn::Set(d, x[r * x_step + k]), column, s[r]);
}

/// Fetches `count` columns of the weight rows, some of them past what is read now: a row goes on, and
/// so does the memory after it.
template <class From>
HWY_INLINE void fetch_ahead(WeightRows<From> rows, size_t k, size_t count) {
  constexpr size_t line = 64, distance = 8 * line;
  for (size_t i = 0; i < lanes_of<float>(); ++i) {
    const From* row = rows.data + i * rows.stride + k / rows.block;
    const auto* from = reinterpret_cast<const std::byte*>(row) + distance;
    for (size_t byte = 0; byte < count / rows.block * sizeof(From); byte += line)
      __builtin_prefetch(from + byte, 0, 3);
  }
}

/// span[r] += the chains of R rows of x (`x_step` apart) with the weight rows. Two blocks are under
/// way at once, as one chain alone would wait for itself.
template <size_t R, class From, class Vector>
HWY_INLINE void add_weights(const float* x, size_t x_step, WeightRows<From> rows, size_t depth,
                            Vector (&span)[R]) {
  const hn::ScalableTag<float> d;
  for (size_t begin = 0; begin < depth; begin += 2 * chain_block) {
    Vector s[R], later[R];
    HWY_UNROLL(3)
    for (size_t r = 0; r < R; ++r) s[r] = later[r] = hn::Zero(d);
    const size_t middle = begin + chain_block, end = middle + chain_block;
    fetch_ahead(rows, begin, 2 * chain_block);
    if (end <= depth) {
      for (size_t k = begin; k < middle; k += rows.columns) {
        columns(rows, k, [&](size_t i, auto column) SINKREF_LAMBDA {
          step_chains(x, x_step, k + i, column, s);
        });
        columns(rows, k + chain_block, [&](size_t i, auto column) SINKREF_LAMBDA {
          step_chains(x, x_step, k + chain_block + i, column, later);
        });
      }
    } else {
      const auto chain = [&](size_t from, size_t to, Vector (&sum)[R]) SINKREF_LAMBDA {
        for_columns(rows, from, to, [&](size_t k, auto column) SINKREF_LAMBDA {
          step_chains(x, x_step, k, column, sum);
        });
      };
      chain(begin, std::min(middle, depth), s);
      if (middle < depth) chain(middle, depth, later);
    }
    HWY_UNROLL(3)
    for (size_t r = 0; r < R; ++r) span[r] = hn::Add(hn::Add(span[r], s[r]), later[r]);
  }
}

/// One weight row per lane: `spacing` apart from row n on, in the file's order. Rows past the last
/// repeat it; nobody reads their outputs.
class WeightGroup {
 public:
  WeightGroup(const StoredMatrix& w, size_t n, size_t spacing = 1)
      : w_(w), row_bytes_(w.row_bytes()), n_(n), spacing_(spacing),
        whole_(n + (lanes() - 1) * spacing < w.rows) {}

  /// Calls use(rows) with columns [k0, k0 + depth), within one slab: where they lie, or widened to fp32.
  template <class Use>
  HWY_INLINE void with_columns(size_t k0, size_t depth, Lines<float>& widened, const Use& use) const {
    const auto in_place = [&](auto type) SINKREF_LAMBDA {
      using From = decltype(type);
      using Rows = WeightRows<From>;
      const std::byte* first = row(0);
      if (!whole_ || reinterpret_cast<uintptr_t>(first) % alignof(From) != 0) return false;
      if (sizeof(From) != 4 && depth % Rows::columns != 0) return false;
      use(Rows{reinterpret_cast<const From*>(first) + k0 / Rows::block, spacing_ * w_.cols / Rows::block});
      return true;
    };
    if (w_.dtype == DType::Q4_0 && in_place(NibbleBlock<false>())) return;
    if (w_.dtype == DType::Q4_1 && in_place(NibbleBlock<true>())) return;
    if (w_.dtype == DType::F32 && in_place(float())) return;
    if constexpr (hn::MaxLanes(hn::ScalableTag<float>()) >= 8) {  // whole blocks of 16-bit rows
      if (w_.dtype == DType::F16 && in_place(hwy::float16_t())) return;
      if (w_.dtype == DType::BF16 && in_place(hwy::bfloat16_t())) return;
    }
    use(widen_columns(k0, depth, widened));
  }

  WeightRows<float> widen_columns(size_t k0, size_t depth, Lines<float>& widened) const {
    widened.resize(lanes() * slab);
    for (size_t i = 0; i < lanes(); ++i)
      widen(w_.dtype, row(i), k0, k0 + depth, widened.data() + i * slab);
    return {widened.data(), slab};
  }

 private:
  static size_t lanes() { return hn::Lanes(hn::ScalableTag<float>()); }
  const std::byte* row(size_t i) const {
    return w_.data + std::min(n_ + i * spacing_, w_.rows - 1) * row_bytes_;  // n itself may be past it
  }

  const StoredMatrix& w_;
  size_t row_bytes_, n_, spacing_;
  bool whole_;
};

}  // namespace HWY_NAMESPACE
}  // namespace sinkref
HWY_AFTER_NAMESPACE();

#endif  // SINKREF_SIMD_WEIGHTS_INL_H
