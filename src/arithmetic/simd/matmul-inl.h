// y (M, N) = x (M, K) · wᵀ, w (N, K) as it is stored in the file: BLIS's loops around one micro-kernel
// (Van Zee and van de Geijn 2015), with w in the place of BLIS's B. Sizes are in fp32 values.
//
//   for each pass of rows of x                    at most about pass_rows = 1024   matmuls
//     pack all of its rows, for all k (A)         in tiles of MR rows              PackedMatrix
//     parallel: for each strip of N               NC = strip_rows = 32             strip
//       for each slab of K                        KC = slab = 256
//         widen, transpose w's strip (B)          in panels of NR outputs          pack_panel
//         for each MC rows of x                   MC = 96: their slab stays in L2
//           for each panel of the strip           KC x NR: it stays in L1
//             for each tile of these rows         MR = tile_rows = 6 (AVX2), 12    with_height
//               micro-kernel: MR x NR sums in registers (NR = 2 vectors), for      tile (tile-inl.h)
//               all k of the slab, block by block
//
//                slab: KC of k                strip: NC outputs
//              +-------+-------+-          +--------+--------+-
//      tile MR | one   | next  |   slab KC | panel  | next   |       tile of y, MR x NR,
//              | tile  | slab  |      of k | KC x NR| panel  |       += tile of x · panel
//              +-------+-------+-          |        |        |
//         tile | next  |       |           +--------+--------+-
//              x, packed: for each k       wᵀ, packed: for each k
//              the MR values of a tile     the NR outputs of a panel
//
// Every lane of a vector is another output, so that tiling changes no order: in each output's sum k
// runs upward through blocks of 32 within spans of 512 (kernels.h), whatever M, N, the vectors' width
// or the threads are.
//
// Words. Panel, tile (BLIS's micro-panel of A), micro-kernel: as in BLIS; a tile's height is its number
// of rows, below MR at the end of x. Pass: rows of x that are packed together. Strip: NC weight rows,
// the task of one thread. Slab: KC columns, whole blocks of every stored type. Block, span: the two
// levels of a sum (chain_block, chain_span); a chain is the fma sequence of one block; a span's sum is
// fresh until its first chain is put there. Group: as many weight rows as a vector has lanes, one in
// each lane. Few rows: up to few_rows of x, multiplied without packing, w going from the file to the
// registers; there a lane walks a stretch of neighbouring rows. Pieces: equal shares of the weight
// rows of several products, the tasks of strips and of few rows; Stretches gives each thread
// neighbouring tasks.

#if defined(SINKREF_SIMD_MATMUL_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef SINKREF_SIMD_MATMUL_INL_H
#undef SINKREF_SIMD_MATMUL_INL_H
#else
#define SINKREF_SIMD_MATMUL_INL_H
#endif

#include <vector>

#include "arithmetic/simd/tile-inl.h"
#include "arithmetic/simd/weights-inl.h"
#include "arithmetic/sums.h"
#include "base/threads.h"

HWY_BEFORE_NAMESPACE();
namespace sinkref {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

inline constexpr size_t strip_rows = 32;   // weight rows per strip: a multiple of every panel's width
inline constexpr size_t pass_rows = 1024;  // rows of x at a time, about, which bounds the buffers
inline constexpr size_t tiles_in_cache = 96 / tile_rows;  // whose slab stays for the next panel
inline constexpr size_t few_rows = 3;      // up to here weights go from the file to the registers
inline constexpr size_t pieces_per_thread = 4;  // at least, of few rows of x
inline constexpr size_t most_rows_per_task = 512;  // of few rows of x

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
    size_t r = 0;
    if constexpr (sizeof(T) == 4)
      for (; r + 4 <= count; r += 4) interleave_four(from + r * step, step, count, depth / 4 * 4, to + r);
    for (size_t k = r == 0 ? 0 : depth / 4 * 4; k < depth; ++k)
      for (size_t i = 0; i < r; ++i) to[k * count + i] = from[i * step + k];
    for (size_t k = 0; k < depth; ++k)
      for (size_t i = r; i < count; ++i) to[k * count + i] = from[i * step + k];
  }
  /// The same for four rows of fp32, and a depth of whole fours.
  static HWY_INLINE void interleave_four(const float* from, size_t step, size_t count, size_t depth, float* to) {
    const hn::FixedTag<float, 4> d;
    for (size_t k = 0; k < depth; k += 4) {
      const float* at = from + k;
      transpose_fours(d, hn::LoadU(d, at), hn::LoadU(d, at + step), hn::LoadU(d, at + 2 * step),
                      hn::LoadU(d, at + 3 * step), [&](size_t i, auto column) SINKREF_LAMBDA {
                        hn::StoreU(column, d, to + (k + i) * count);
                      });
    }
  }
};

/// Fetches the stored weights that a strip will widen next, a few cache lines at each call: its rows
/// are too short, and lie too far apart, for the processor to see them coming.
class FetchAhead {
 public:
  /// Columns [k0, k0 + slab) of `count` rows from n on, in about `calls` calls.
  FetchAhead(const StoredMatrix& w, size_t n, size_t count, size_t k0, size_t calls)
      : step_(w.row_bytes()) {
    if (n >= w.rows) return;
    rows_ = std::min(count, w.rows - n);
    bytes_ = step_ * std::min(slab, w.cols - k0) / w.cols;
    each_ = (rows_ * ((bytes_ + line - 1) / line) + calls - 1) / calls;
    row_ = next_ = w.stored_row(n) + step_ * k0 / w.cols;
  }
  // No call in here: between the blocks of a tile, it would cost the registers their sums.
  HWY_INLINE void operator()() {
    for (size_t i = 0; i < each_ && rows_ > 0; ++i) {
      __builtin_prefetch(next_, 0, 2);
      next_ += line;
      if (next_ < row_ + bytes_) continue;
      next_ = row_ += step_;
      --rows_;
    }
  }

 private:
  static constexpr size_t line = 64;
  size_t step_, bytes_ = 0, each_ = 0, rows_ = 0;  // of rows: those left
  const std::byte* row_ = nullptr;
  const std::byte* next_ = nullptr;
};

/// Where a strip's outputs go: columns n … n + count - 1 of y, which lie elsewhere where the file
/// interleaves rows.
template <class T>
class StripOutputs {
 public:
  StripOutputs(const StoredMatrix& w, size_t n, size_t count, T* y)
      : y_(y + n), step_(w.rows), count_(count), in_place_(w.interleaved_head_dim == 0) {
    for (size_t i = 0; i < count; ++i)
      place_[i] = static_cast<std::ptrdiff_t>(w.output_of(n + i)) - static_cast<std::ptrdiff_t>(n);
  }
  /// Fetches where columns [i, i + width) of rows [r0, r1) will be written: their lines are far apart,
  /// and seldom in a cache.
  HWY_INLINE void fetch(size_t r0, size_t r1, size_t i, size_t width) const {
    for (size_t r = r0; r < r1; ++r)
      for (size_t j = i; j < std::min(count_, i + width); j += 64 / sizeof(T))
        __builtin_prefetch(y_ + r * step_ + j, 1, 3);
  }
  /// Row r, columns [i, i + width) of the strip.
  HWY_INLINE void write(size_t r, size_t i, size_t width, const Sums<T>& sums) const {
    const size_t end = std::min(count_, i + width);
    T* row = y_ + r * step_;
    if (in_place_) return sums.result(r * strip_rows + i, end - i, row + i);
    T outputs[strip_rows];
    sums.result(r * strip_rows + i, end - i, outputs + i);
    for (; i < end; ++i) row[place_[i]] = outputs[i];
  }

 private:
  T* y_;
  size_t step_, count_;
  bool in_place_;
  std::ptrdiff_t place_[strip_rows];
};

/// One task: all packed rows against weight rows [n, n + count), at most strip_rows.
template <class T>
void strip(PackedMatrix<T>& x, const StoredMatrix& w, size_t n, size_t count, T* y) {
  const size_t width = 2 * lanes_of<T>();
  const StripOutputs<T> outputs(w, n, count, y);
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
    const auto panel_tile = [&](size_t i, size_t t) SINKREF_LAMBDA {
      const size_t row = t * tile_rows, end = row + x.height(t);
      if (ends) outputs.fetch(row, end, i, width);
      with_height(x.height(t), [&](auto height) SINKREF_LAMBDA {
        tile<height(), 2>(PackedRows<T>{x.at(k0, depth, t)}, s.panel.data() + i * slab, width, depth,
                          s.sums.fresh, s.sums.span.data() + row * strip_rows + i, strip_rows, ahead);
      });
      if (ends)
        for (size_t r = row; r < end; ++r) outputs.write(r, i, width, s.sums);
    };
    for (size_t t0 = 0; t0 < x.tiles(); t0 += tiles_in_cache)
      for (size_t i = 0; i < count; i += width)
        for (size_t t = t0; t < std::min(x.tiles(), t0 + tiles_in_cache); ++t) panel_tile(i, t);
    if (ends) break;
    s.sums.end_block();
    if ((k0 + slab) % chain_span == 0) s.sums.end_span();
  }
}

/// R rows of x against one vector of weight rows, in registers: what decode does. The outputs of row r
/// are out[r·lanes] on.
template <size_t R>
void few_rows_group(const float* x, size_t cols, const WeightGroup& group, Lines<float>& widened,
                    float* out) {
  const hn::ScalableTag<float> d;
  hn::Vec<decltype(d)> span[R], total[R];
  HWY_UNROLL(3)
  for (size_t r = 0; r < R; ++r) span[r] = total[r] = hn::Zero(d);
  for (size_t k0 = 0; k0 < cols; k0 += slab) {
    const size_t depth = std::min(slab, cols - k0);
    group.with_columns(k0, depth, widened, [&](auto rows) SINKREF_LAMBDA {
      add_weights<R>(x + k0, cols, rows, depth, span);
    });
    if ((k0 + slab) % chain_span != 0 && k0 + depth != cols) continue;
    HWY_UNROLL(3)
    for (size_t r = 0; r < R; ++r) {
      total[r] = hn::Add(total[r], span[r]);
      span[r] = hn::Zero(d);
    }
  }
  for (size_t r = 0; r < R; ++r) hn::StoreU(total[r], d, out + r * hn::Lanes(d));
}

/// One task of few rows of x: weight rows [n, n + count). Every lane walks a stretch of rows of its
/// own: so many long streams read memory faster than one does.
inline void few_rows_task(const float* x, size_t rows, const StoredMatrix& w, size_t n, size_t count,
                          float* y) {
  const size_t lanes = lanes_of<float>(), cols = w.cols;
  Lines<float>& widened = scratch<float>().widened;
  float out[few_rows * hn::MaxLanes(hn::ScalableTag<float>())];
  const auto group = [&](size_t first, size_t spacing, size_t used) {
    const WeightGroup weights(w, first, spacing);
    switch (rows) {
      case 1: few_rows_group<1>(x, cols, weights, widened, out); break;
      case 2: few_rows_group<2>(x, cols, weights, widened, out); break;
      case 3: few_rows_group<3>(x, cols, weights, widened, out); break;
    }
    for (size_t r = 0; r < rows; ++r)
      for (size_t i = 0; i < used; ++i)
        y[r * w.rows + w.output_of(first + i * spacing)] = out[r * lanes + i];
  };
  const size_t spacing = count / lanes, rest = count % lanes;
  for (size_t i = 0; i < spacing; ++i) group(n + i, spacing, lanes);
  if (rest != 0) group(n + count - rest, 1, rest);
}

/// The weight rows of several products, one after the other, cut into pieces of whole units, as equal
/// as can be: threads with as many pieces then have as much to do.
template <class T>
class Pieces {
 public:
  Pieces(std::span<const Product<T>> products, size_t unit, size_t count)
      : products_(products), unit_(unit), units_(units(products, unit)), count_(count) {}

  static size_t units(std::span<const Product<T>> products, size_t unit) {
    size_t rows = 0;
    for (const Product<T>& p : products) rows += p.w->rows;
    return (rows + unit - 1) / unit;
  }

  /// Calls run(product, first weight row, count) for all pieces, on all threads: each has a stretch of
  /// its own, so that weights are read in the order in which they lie.
  template <class Run>
  void work(const Run& run) const {
    parallel_for(count_, [&](size_t task) {
      size_t begin = units_ * task / count_ * unit_, end = units_ * (task + 1) / count_ * unit_;
      for (const Product<T>& p : products_) {
        if (begin < p.w->rows) run(p, begin, std::min(end, p.w->rows) - begin);
        if (end <= p.w->rows) return;
        begin = begin > p.w->rows ? begin - p.w->rows : 0;
        end -= p.w->rows;
      }
    });
  }

 private:
  std::span<const Product<T>> products_;
  size_t unit_, units_, count_;
};

/// Pieces of few rows of x: a few for each thread, so that who is faster can help.
template <class T>
Pieces<T> few_pieces(std::span<const Product<T>> products) {
  const size_t lanes = lanes_of<T>(), units = Pieces<T>::units(products, lanes);
  const size_t some = pieces_per_thread * thread_count();
  return {products, lanes, std::min(units, std::max(some, units * lanes / most_rows_per_task))};
}

template <class T>
void matmuls(const T* x, size_t rows, std::span<const Product<T>> products) {
  if constexpr (sizeof(T) == 4) {
    if (rows <= few_rows) {
      few_pieces(products).work([=](const Product<T>& p, size_t n, size_t count) {
        few_rows_task(x, rows, *p.w, n, count, p.y);
      });
      return;
    }
  }
  static thread_local PackedMatrix<T> packed_here;
  PackedMatrix<T>& packed = packed_here;  // shared by the threads below
  const size_t cols = products[0].w->cols;
  // Equal passes of whole tiles: a few rows would cost as much as many, for the weights are packed anew.
  const size_t passes = (rows + pass_rows - 1) / pass_rows;
  const size_t pass = ((rows + passes - 1) / passes + tile_rows - 1) / tile_rows * tile_rows;
  for (size_t r0 = 0; r0 < rows; r0 += pass) {
    packed.resize(std::min(pass, rows - r0), cols);
    parallel_for(packed.tiles(), [&](size_t t) { packed.pack_tile(x + r0 * cols, cols, t); });
    const Pieces<T> strips(products, strip_rows, Pieces<T>::units(products, strip_rows));
    strips.work([&](const Product<T>& p, size_t n, size_t count) {
      strip(packed, *p.w, n, count, p.y + r0 * p.w->rows);
    });
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace sinkref
HWY_AFTER_NAMESPACE();

#endif  // SINKREF_SIMD_MATMUL_INL_H
