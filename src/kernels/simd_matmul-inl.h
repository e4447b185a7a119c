// y = x wᵀ for weights as they lie in the file: strips of weight rows are widened and transposed,
// slab by slab of k, into panels that a core's first cache holds, and met there by tiles of x.

#if defined(SINKREF_SIMD_MATMUL_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef SINKREF_SIMD_MATMUL_INL_H
#undef SINKREF_SIMD_MATMUL_INL_H
#else
#define SINKREF_SIMD_MATMUL_INL_H
#endif

#include <omp.h>

#include <atomic>
#include <vector>

#include "kernels/simd_tile-inl.h"
#include "kernels/simd_weights-inl.h"
#include "kernels/sums.h"

HWY_BEFORE_NAMESPACE();
namespace sinkref {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

inline constexpr size_t strip_rows = 32;   // weight rows per task: a multiple of every panel's width
inline constexpr size_t pass_rows = 1020;  // rows of x at a time, which bounds the buffers
inline constexpr size_t tiles_in_cache = 96 / tile_rows;  // whose slab stays for the next panel
inline constexpr size_t few_rows = 3;      // up to here weights go from the file to the registers

/// Buffers of one thread; they grow once and stay.
template <class T>
struct Scratch {
  Lines<float> widened;
  Lines<T> panel;
  Sums<T> sums;
};

template <class T>
Scratch<T>& scratch() {
  static thread_local Scratch<T> buffers;
  return buffers;
}

/// Weight rows [n, n + width), columns [k0, k0 + depth), as out[k·width + i].
template <class T>
HWY_INLINE void pack_panel(const StoredMatrix& w, size_t n, size_t k0, size_t depth, size_t width,
                           Lines<float>& widened, T* out) {
  const size_t lanes = lanes_of<float>();
  for (size_t i = 0; i < width; i += lanes) {
    const WeightGroup group(w, n + i);
    if constexpr (sizeof(T) == 4) {
      group.with_columns(k0, depth, widened, [&](auto rows) SINKREF_LAMBDA {
        store_columns(rows, depth, out + i, width);
      });
    } else {
      const WeightRows<float> rows = group.widen_columns(k0, depth, widened);
      for (size_t k = 0; k < depth; ++k)
        for (size_t j = 0; j < std::min(lanes, width - i); ++j)
          out[k * width + i + j] = static_cast<T>(rows.data[j * rows.stride + k]);
    }
  }
}

/// The rows of x as tiles read them: slab by slab of k, then tile by tile, then k, then row.
template <class T>
struct PackedMatrix {
  size_t rows = 0;
  Lines<T> values;

  void resize(size_t count, size_t depth) {
    rows = count;
    values.resize(count * depth);
  }
  size_t tiles() const { return (rows + tile_rows - 1) / tile_rows; }
  size_t height(size_t tile) const { return std::min(tile_rows, rows - tile * tile_rows); }
  /// Tile t of the slab that begins at k0 and is `depth` deep.
  T* at(size_t k0, size_t depth, size_t t) {
    return values.data() + k0 * rows + t * tile_rows * depth;
  }

  void pack_tile(const T* x, size_t cols, size_t t) {
    const T* from = x + t * tile_rows * cols;
    for (size_t k0 = 0; k0 < cols; k0 += slab) {
      const size_t depth = std::min(slab, cols - k0);
      if (height(t) == tile_rows)
        interleave(from + k0, cols, tile_rows, depth, at(k0, depth, t));
      else
        interleave(from + k0, cols, height(t), depth, at(k0, depth, t));
    }
  }

 private:
  /// to[k·count + r] = from[r·step + k]
  static HWY_INLINE void interleave(const T* from, size_t step, size_t count, size_t depth, T* to) {
    for (size_t k = 0; k < depth; ++k)
      for (size_t r = 0; r < count; ++r) to[k * count + r] = from[r * step + k];
  }
};

/// Fetches the stored weights that a strip will widen next, a few cache lines at each call: its rows
/// are too short, and lie too far apart, for the processor to see them coming.
class FetchAhead {
 public:
  /// Columns [k0, k0 + slab) of `count` rows from n on, in about `calls` calls.
  FetchAhead(const StoredMatrix& w, size_t n, size_t count, size_t k0, size_t calls)
      : w_(w), row_(n), end_(std::min(w.rows, n + count)) {
    if (row_ >= end_) return;
    begin_ = w.row_bytes() * k0 / w.cols;
    bytes_ = w.row_bytes() * std::min(slab, w.cols - k0) / w.cols;
    each_ = ((end_ - row_) * ((bytes_ + line - 1) / line) + calls - 1) / calls;
    next_ = w.row(row_) + begin_;
    last_ = next_ + bytes_;
  }
  HWY_INLINE void operator()() {
    for (size_t i = 0; i < each_ && row_ < end_; ++i) {
      __builtin_prefetch(next_, 0, 2);
      next_ += line;
      if (next_ >= last_ && ++row_ < end_) {
        next_ = w_.row(row_) + begin_;
        last_ = next_ + bytes_;
      }
    }
  }

 private:
  static constexpr size_t line = 64;
  const StoredMatrix& w_;
  size_t row_, end_, begin_ = 0, bytes_ = 0, each_ = 0;
  const std::byte* next_ = nullptr;
  const std::byte* last_ = nullptr;
};

/// One task: all packed rows against weight rows [n, n + strip_rows).
template <class T>
void strip(PackedMatrix<T>& x, const StoredMatrix& w, size_t n, T* y) {
  const size_t width = 2 * lanes_of<T>();
  const size_t count = std::min(strip_rows, w.rows - n);
  Scratch<T>& s = scratch<T>();
  s.panel.resize(slab * strip_rows);
  s.sums.reset(x.rows * strip_rows);
  for (size_t k0 = 0; k0 < w.cols; k0 += slab) {
    const size_t depth = std::min(slab, w.cols - k0);
    for (size_t i = 0; i < count; i += width)
      pack_panel(w, n + i, k0, depth, width, s.widened, s.panel.data() + i * slab);
    const bool ends = k0 + depth == w.cols;
    FetchAhead ahead(w, ends ? n + strip_rows : n, strip_rows, ends ? 0 : k0 + slab,
                     x.tiles() * ((count + width - 1) / width) * ((depth + chain_block - 1) / chain_block));
    for (size_t t0 = 0; t0 < x.tiles(); t0 += tiles_in_cache)
      for (size_t i = 0; i < count; i += width)
        for (size_t t = t0; t < std::min(x.tiles(), t0 + tiles_in_cache); ++t) {
          with_height(x.height(t), [&](auto height) SINKREF_LAMBDA {
            tile<height(), 2>(PackedRows<T>{x.at(k0, depth, t)}, s.panel.data() + i * slab, width, depth,
                              s.sums.span.data() + t * tile_rows * strip_rows + i, strip_rows, ahead);
          });
        }
    if (ends || (k0 + slab) % chain_span == 0) s.sums.end_span();
  }
  for (size_t r = 0; r < x.rows; ++r)
    std::copy_n(s.sums.total.data() + r * strip_rows, count, y + r * w.rows + n);
}

/// R rows of x against one vector of weight rows, in registers: what decode does.
template <size_t R>
void few_rows_group(const float* x, const StoredMatrix& w, size_t n, Lines<float>& widened,
                    float* y) {
  const hn::ScalableTag<float> d;
  const WeightGroup group(w, n);
  hn::Vec<decltype(d)> span[R], total[R];
  HWY_UNROLL(3)
  for (size_t r = 0; r < R; ++r) span[r] = total[r] = hn::Zero(d);
  for (size_t k0 = 0; k0 < w.cols; k0 += slab) {
    const size_t depth = std::min(slab, w.cols - k0);
    group.with_columns(k0, depth, widened, [&](auto rows) SINKREF_LAMBDA {
      add_weights<R>(x + k0, w.cols, rows, depth, span);
    });
    if ((k0 + slab) % chain_span != 0 && k0 + depth != w.cols) continue;
    HWY_UNROLL(3)
    for (size_t r = 0; r < R; ++r) {
      total[r] = hn::Add(total[r], span[r]);
      span[r] = hn::Zero(d);
    }
  }
  float out[hn::MaxLanes(d)];
  for (size_t r = 0; r < R; ++r) {
    hn::StoreU(total[r], d, out);
    std::copy_n(out, std::min(hn::Lanes(d), w.rows - n), y + r * w.rows + n);
  }
}

/// One task of few_rows: weight rows [n, n + strip_rows).
inline void few_rows_strip(const float* x, size_t rows, const StoredMatrix& w, size_t n, float* y) {
  Lines<float>& widened = scratch<float>().widened;
  for (size_t i = n; i < std::min(w.rows, n + strip_rows); i += lanes_of<float>())
    switch (rows) {
      case 1: few_rows_group<1>(x, w, i, widened, y); break;
      case 2: few_rows_group<2>(x, w, i, widened, y); break;
      case 3: few_rows_group<3>(x, w, i, widened, y); break;
    }
}

/// Tasks 0 … count - 1, of which each thread has a stretch of its own: weights are then read in the
/// order in which they lie. Who is done helps the next one.
class Stretches {
 public:
  explicit Stretches(size_t count) : count_(count), next_(static_cast<size_t>(omp_get_max_threads())) {
    for (size_t t = 0; t < next_.size(); ++t) next_[t].task = begin(t);
  }
  /// Calls run(task) for this thread's share.
  template <class Run>
  void work(const Run& run) {
    const size_t self = static_cast<size_t>(omp_get_thread_num());
    for (size_t step = 0; step < next_.size(); ++step) {
      const size_t t = (self + step) % next_.size();
      for (size_t task; (task = next_[t].task.fetch_add(1, std::memory_order_relaxed)) < begin(t + 1);)
        run(task);
    }
  }

 private:
  struct alignas(64) Next {
    std::atomic<size_t> task;
  };
  size_t begin(size_t t) const { return count_ * t / next_.size(); }
  size_t count_;
  std::vector<Next> next_;
};

/// All strips of all products: run(product, first weight row).
template <class T>
size_t strips_of(std::span<const Product<T>> products) {
  size_t strips = 0;
  for (const Product<T>& p : products) strips += (p.w->rows + strip_rows - 1) / strip_rows;
  return strips;
}
template <class T, class Run>
void for_strips(std::span<const Product<T>> products, Stretches& stretches, const Run& run) {
  stretches.work([&](size_t strip) {
    size_t p = 0, s = strip;
    for (size_t own; s >= (own = (products[p].w->rows + strip_rows - 1) / strip_rows); ++p) s -= own;
    run(products[p], s * strip_rows);
  });
}

template <class T>
void matmuls(const T* x, size_t rows, std::span<const Product<T>> products) {
  if constexpr (sizeof(T) == 4) {
    if (rows <= few_rows) {
      Stretches stretches(strips_of(products));
#pragma omp parallel
      for_strips<T>(products, stretches, [=](const Product<T>& p, size_t n) {
        few_rows_strip(x, rows, *p.w, n, p.y);
      });
      return;
    }
  }
  static thread_local PackedMatrix<T> packed_here;
  PackedMatrix<T>& packed = packed_here;  // shared by the threads below
  const size_t cols = products[0].w->cols;
  for (size_t r0 = 0; r0 < rows; r0 += pass_rows) {
    packed.resize(std::min(pass_rows, rows - r0), cols);
    Stretches stretches(strips_of(products));
#pragma omp parallel
    {
#pragma omp for schedule(static)
      for (size_t t = 0; t < packed.tiles(); ++t) packed.pack_tile(x + r0 * cols, cols, t);
      for_strips<T>(products, stretches, [&](const Product<T>& p, size_t n) {
        strip(packed, *p.w, n, p.y + r0 * p.w->rows);
      });
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace sinkref
HWY_AFTER_NAMESPACE();

#endif  // SINKREF_SIMD_MATMUL_INL_H
