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
#include <vector>

#include "kernels/simd_tile-inl.h"
#include "kernels/sums.h"
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
  size_t stride;     ///< elements from row to row
  const From* next;  ///< short rows: where the next group of rows continues, else null

  static constexpr size_t columns = 16 / sizeof(From);  ///< transposed at a time
  static constexpr size_t line = 64 / sizeof(From);     ///< elements of a cache line
};

/// Fetches, while line k / line of each row is used, as many lines of the next rows as they lie in
/// memory: first from far to the second cache, later to the first. The processor's own prefetchers
/// follow rows of many KiB but lose their way in short ones.
template <class From>
HWY_INLINE void fetch_ahead(WeightRows<From> rows, size_t k) {
  constexpr size_t far_bytes = 32768;
  if (rows.next == nullptr) return;
  const size_t lanes = hn::Lanes(hn::ScalableTag<float>());
  const char* from = reinterpret_cast<const char*>(rows.next + k * lanes);
  for (size_t i = 0; i < lanes; ++i) {
    __builtin_prefetch(from + i * 64);
    __builtin_prefetch(from + i * 64 + far_bytes, 0, 2);
  }
}

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
  const hn::Repartition<double, decltype(d)> pairs;
  const float* from = rows.data + k;
  const size_t step = 4 * rows.stride;
  const auto r0 = load_blocks(d, from, step), r1 = load_blocks(d, from + rows.stride, step);
  const auto r2 = load_blocks(d, from + 2 * rows.stride, step);
  const auto r3 = load_blocks(d, from + 3 * rows.stride, step);
  const auto low01 = hn::BitCast(pairs, hn::InterleaveLower(d, r0, r1));
  const auto low23 = hn::BitCast(pairs, hn::InterleaveLower(d, r2, r3));
  const auto high01 = hn::BitCast(pairs, hn::InterleaveUpper(d, r0, r1));
  const auto high23 = hn::BitCast(pairs, hn::InterleaveUpper(d, r2, r3));
  emit(0, hn::BitCast(d, hn::InterleaveLower(pairs, low01, low23)));
  emit(1, hn::BitCast(d, hn::InterleaveUpper(pairs, low01, low23)));
  emit(2, hn::BitCast(d, hn::InterleaveLower(pairs, high01, high23)));
  emit(3, hn::BitCast(d, hn::InterleaveUpper(pairs, high01, high23)));
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

/// Calls use(k, column) for k in [begin, end).
template <class From, class Use>
HWY_INLINE void for_columns(WeightRows<From> rows, size_t begin, size_t end, const Use& use) {
  constexpr size_t step = WeightRows<From>::columns, line = WeightRows<From>::line;
  size_t k = begin;
  while (k + step <= end) {
    const size_t stop = std::min(k + line, end - (end - k) % step);
    if (k + line <= end) fetch_ahead(rows, k);
    for (; k < stop; k += step)
      columns(rows, k, [&](size_t i, auto column) SINKREF_LAMBDA { use(k + i, column); });
  }
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
    if (end <= depth) {
      for (size_t k = begin; k < middle; k += rows.columns) {
        if (k % rows.line == 0) {
          fetch_ahead(rows, k);
          fetch_ahead(rows, k + chain_block);
        }
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

/// The weight rows from n on, one per lane. Rows past the last repeat it; nobody reads their outputs.
class WeightGroup {
 public:
  WeightGroup(const StoredMatrix& w, size_t n) : dtype_(w.dtype), row_bytes_(w.row_bytes()) {
    for (size_t i = 0; i < lanes(); ++i) row_[i] = w.row(std::min(n + i, w.rows - 1));
    const std::ptrdiff_t step = row_[1] - row_[0];
    evenly_spaced_ = step > 0 && n + lanes() <= w.rows;
    for (size_t i = 1; i < lanes(); ++i) evenly_spaced_ &= row_[i] - row_[i - 1] == step;
  }

  /// Calls use(rows) with columns [k0, k0 + depth), within one slab: in the file where they lie evenly
  /// spaced and aligned there (not so the last rows), else widened to fp32.
  template <class Use>
  HWY_INLINE void with_columns(size_t k0, size_t depth, Lines<float>& widened, const Use& use) const {
    const auto in_file = [&](auto type) SINKREF_LAMBDA {
      using From = decltype(type);
      if (!evenly_spaced_ || reinterpret_cast<uintptr_t>(row_[0]) % sizeof(From) != 0) return false;
      if (sizeof(From) == 2 && depth % WeightRows<From>::columns != 0) return false;
      use(in_place<From>(k0));
      return true;
    };
    if (dtype_ == DType::F32 && in_file(float())) return;
    if constexpr (hn::MaxLanes(hn::ScalableTag<float>()) >= 8) {  // whole blocks of 16-bit rows
      if (dtype_ == DType::F16 && in_file(hwy::float16_t())) return;
      if (dtype_ == DType::BF16 && in_file(hwy::bfloat16_t())) return;
    }
    use(widen_columns(k0, depth, widened));
  }

  WeightRows<float> widen_columns(size_t k0, size_t depth, Lines<float>& widened) const {
    widened.resize(lanes() * slab);
    const DTypeInfo& info = dtype_info(dtype_);
    const size_t begin = k0 / info.block * info.bytes;
    const size_t end = (k0 + depth) / info.block * info.bytes;
    for (size_t i = 0; i < lanes(); ++i) {
      const std::byte* next = row_[i] + lanes() * row_bytes_;  // what the next group will read
      for (size_t at = begin; at < end; at += 64) __builtin_prefetch(next + at);
      widen(dtype_, row_[i], k0, k0 + depth, widened.data() + i * slab);
    }
    return {widened.data(), slab, nullptr};
  }

 private:
  static size_t lanes() { return hn::Lanes(hn::ScalableTag<float>()); }

  template <class From>
  WeightRows<From> in_place(size_t k0) const {
    const size_t stride = static_cast<size_t>(row_[1] - row_[0]) / sizeof(From);
    const From* first = reinterpret_cast<const From*>(row_[0]);
    const bool short_rows = lanes() * row_bytes_ <= 32768;
    return {first + k0, stride, short_rows ? first + lanes() * (stride + k0) : nullptr};
  }

  DType dtype_;
  size_t row_bytes_;
  bool evenly_spaced_;
  const std::byte* row_[hn::MaxLanes(hn::ScalableTag<float>())];
};

}  // namespace HWY_NAMESPACE
}  // namespace sinkref
HWY_AFTER_NAMESPACE();

#endif  // SINKREF_SIMD_WEIGHTS_INL_H
