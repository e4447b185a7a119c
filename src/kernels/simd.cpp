// The vector kernels: the text of spec.cpp with vector lanes over *outputs*, so that no sum ever
// crosses a lane, a tile or a thread, and the width of a vector cannot change a bit. The only file
// that knows Highway; compiled once per target by foreach_target.h.

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/simd.cpp"
#include <hwy/foreach_target.h>  // must come before highway.h
#include <hwy/highway.h>

#include <algorithm>
#include <limits>

#include "kernels/scalar_math.h"
#include "kernels/tables.h"

HWY_BEFORE_NAMESPACE();
namespace sinkref {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Register tile: tile_rows x 2 vectors of accumulators, which fill the register file.
#if HWY_TARGET == HWY_AVX2
constexpr size_t tile_rows = 6;
#else
constexpr size_t tile_rows = 12;
#endif
constexpr size_t chunk_rows = 240;   // rows of x per task, so that its panels stay in L2

template <class T>
HWY_INLINE size_t panel_width() {
  return 2 * hn::Lanes(hn::ScalableTag<T>());
}

/// Adds one block's chains to the totals: c[r][j] += Σ_k a[k·R + r] · b[k·b_step + j].
template <size_t R, class T>
HWY_INLINE void tile(size_t depth, const T* a, const T* b, size_t b_step, T* c, size_t c_step) {
  const hn::ScalableTag<T> d;
  using V = hn::Vec<decltype(d)>;
  const size_t lanes = hn::Lanes(d);
  V left[R], right[R];
  HWY_UNROLL(12)
  for (size_t r = 0; r < R; ++r) left[r] = right[r] = hn::Zero(d);
  for (size_t k = 0; k < depth; ++k) {
    const V b_left = hn::LoadU(d, b + k * b_step);
    const V b_right = hn::LoadU(d, b + k * b_step + lanes);
    HWY_UNROLL(12)
    for (size_t r = 0; r < R; ++r) {
      const V a_r = hn::Set(d, a[k * R + r]);
      left[r] = hn::MulAdd(a_r, b_left, left[r]);
      right[r] = hn::MulAdd(a_r, b_right, right[r]);
    }
  }
  HWY_UNROLL(12)
  for (size_t r = 0; r < R; ++r) {
    T* total = c + r * c_step;
    hn::StoreU(hn::Add(hn::LoadU(d, total), left[r]), d, total);
    hn::StoreU(hn::Add(hn::LoadU(d, total + lanes), right[r]), d, total + lanes);
  }
}

/// tile() for any number of rows up to tile_rows.
template <class T>
HWY_INLINE void tile_of(size_t rows, size_t depth, const T* a, const T* b, size_t b_step, T* c,
                        size_t c_step) {
  switch (rows) {
#define SINKREF_TILE(R) \
  case R: return tile<R>(depth, a, b, b_step, c, c_step);
    SINKREF_TILE(1)
    SINKREF_TILE(2)
    SINKREF_TILE(3)
    SINKREF_TILE(4)
    SINKREF_TILE(5)
    SINKREF_TILE(6)
#if HWY_TARGET != HWY_AVX2
    SINKREF_TILE(7)
    SINKREF_TILE(8)
    SINKREF_TILE(9)
    SINKREF_TILE(10)
    SINKREF_TILE(11)
    SINKREF_TILE(12)
#endif
#undef SINKREF_TILE
  }
}

/// Transposes four rows: out[k·step + i] = row_i[k].
HWY_INLINE void transpose_4(const float* const* rows, size_t depth, float* out, size_t step) {
  const hn::Full128<float> d;
  const hn::Repartition<double, decltype(d)> pairs;
  size_t k = 0;
  for (; k + 4 <= depth; k += 4) {
    const auto r0 = hn::LoadU(d, rows[0] + k), r1 = hn::LoadU(d, rows[1] + k);
    const auto r2 = hn::LoadU(d, rows[2] + k), r3 = hn::LoadU(d, rows[3] + k);
    const auto low01 = hn::BitCast(pairs, hn::InterleaveLower(d, r0, r1));
    const auto low23 = hn::BitCast(pairs, hn::InterleaveLower(d, r2, r3));
    const auto high01 = hn::BitCast(pairs, hn::InterleaveUpper(d, r0, r1));
    const auto high23 = hn::BitCast(pairs, hn::InterleaveUpper(d, r2, r3));
    float* to = out + k * step;
    hn::StoreU(hn::BitCast(d, hn::InterleaveLower(pairs, low01, low23)), d, to);
    hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(pairs, low01, low23)), d, to + step);
    hn::StoreU(hn::BitCast(d, hn::InterleaveLower(pairs, high01, high23)), d, to + 2 * step);
    hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(pairs, high01, high23)), d, to + 3 * step);
  }
  for (; k < depth; ++k)
    for (size_t i = 0; i < 4; ++i) out[k * step + i] = rows[i][k];
}

template <class From, class T>
HWY_INLINE void transpose_4(const From* const* rows, size_t depth, T* out, size_t step) {
  for (size_t k = 0; k < depth; ++k)
    for (size_t i = 0; i < 4; ++i) out[k * step + i] = rows[i][k];
}

/// out[k·width + i] = row_i[k] for `count` rows, zeros up to `width`; row(i) gives a pointer.
template <class T, class Row>
HWY_INLINE void pack(Row row, size_t count, size_t depth, T* out, size_t width) {
  using From = std::remove_cv_t<std::remove_reference_t<decltype(*row(0))>>;
  size_t i = 0;
  for (; i + 4 <= count; i += 4) {
    const From* four[4] = {row(i), row(i + 1), row(i + 2), row(i + 3)};
    transpose_4(four, depth, out + i, width);
  }
  for (; i < width; ++i) {
    const From* from = i < count ? row(i) : nullptr;
    for (size_t k = 0; k < depth; ++k) out[k * width + i] = from ? static_cast<T>(from[k]) : T(0);
  }
}

/// The rows of x (row-major, `x_step` apart) as register tiles read them: block by block of k, then
/// tile by tile, then k, then row.
template <class T>
struct PackedRows {
  size_t rows = 0;
  std::vector<T> values;

  static size_t tile_height(size_t rows, size_t first) {
    return std::min(tile_rows, rows - first);
  }
  const T* block(size_t k0) const { return values.data() + k0 * rows; }

  void assign(const T* x, size_t count, size_t x_step, size_t depth) {
    rows = count;
    values.resize(rows * depth);
    for (size_t k0 = 0; k0 < depth; k0 += chain_block)
      for (size_t r = 0; r < rows; r += tile_rows)
        pack_tile(x + r * x_step + k0, tile_height(rows, r), x_step,
                  std::min(chain_block, depth - k0), values.data() + k0 * rows, r);
  }
  static void pack_tile(const T* x, size_t height, size_t x_step, size_t depth, T* block,
                        size_t first) {
    pack([=](size_t i) { return x + i * x_step; }, height, depth, block + first * depth, height);
  }
};

/// totals (rows, width) += one block: all register tiles of a packed block against one panel.
template <class T>
HWY_INLINE void add_block(const T* packed, size_t first, size_t end, size_t depth, const T* b,
                          size_t b_step, T* totals, size_t totals_step) {
  for (size_t r = first; r < end; r += tile_rows)
    tile_of(std::min(tile_rows, end - r), depth, packed + r * depth, b, b_step,
            totals + (r - first) * totals_step, totals_step);
}

/// Sums of (rows, width) outputs: add_block adds to `span`, end_span adds that to `total`.
template <class T>
struct Sums {
  std::vector<T> span, total;

  void reset(size_t n) {
    span.assign(n, T(0));
    total.assign(n, T(0));
  }
  void end_span() {
    for (size_t i = 0; i < total.size(); ++i) {
      total[i] = total[i] + span[i];
      span[i] = T(0);
    }
  }
};

/// Buffers of one thread; they grow once and stay.
template <class T>
struct Scratch {
  std::vector<float> widened;
  std::vector<T> panel;
  Sums<T> sums;
  PackedRows<T> packed;
};

template <class T>
Scratch<T>& scratch() {
  static thread_local Scratch<T> buffers;
  return buffers;
}

/// Weight rows [n, n + count), columns [k0, k0 + depth), widened and transposed into a panel.
template <class T>
HWY_INLINE void pack_weights(const StoredMatrix& w, size_t n, size_t count, size_t k0, size_t depth,
                             std::vector<float>& widened, T* panel) {
  if (w.dtype == DType::F32 && reinterpret_cast<uintptr_t>(w.data) % alignof(float) == 0) {
    const auto row = [&](size_t i) { return reinterpret_cast<const float*>(w.row(n + i)) + k0; };
    return pack(row, count, depth, panel, panel_width<T>());
  }
  widened.resize(count * chain_span);
  for (size_t i = 0; i < count; ++i)
    widen(w.dtype, w.row(n + i), k0, k0 + depth, widened.data() + i * chain_span);
  const auto row = [&](size_t i) {
    return static_cast<const float*>(widened.data()) + i * chain_span;
  };
  pack(row, count, depth, panel, panel_width<T>());
}

/// One task of a matmul: rows [r0, r1) of the packed x against one panel of weight rows.
template <class T>
void matmul_task(const PackedRows<T>& x, size_t r0, size_t r1, const StoredMatrix& w, size_t n,
                 T* y) {
  const size_t width = panel_width<T>();
  const size_t count = std::min(width, w.rows - n);
  Scratch<T>& buffers = scratch<T>();
  buffers.panel.resize(chain_span * width);
  buffers.sums.reset((r1 - r0) * width);
  for (size_t k0 = 0; k0 < w.cols; k0 += chain_span) {
    const size_t k1 = std::min(w.cols, k0 + chain_span);
    pack_weights(w, n, count, k0, k1 - k0, buffers.widened, buffers.panel.data());
    for (size_t k = k0; k < k1; k += chain_block)
      add_block(x.block(k), r0, r1, std::min(chain_block, k1 - k),
                buffers.panel.data() + (k - k0) * width, width, buffers.sums.span.data(), width);
    buffers.sums.end_span();
  }
  for (size_t r = r0; r < r1; ++r)
    std::copy_n(buffers.sums.total.data() + (r - r0) * width, count, y + r * w.rows + n);
}

template <class T>
void matmul(const T* x, size_t rows, const StoredMatrix& w, T* y) {
  static thread_local PackedRows<T> packed;
  packed.assign(x, rows, w.cols, w.cols);
  const PackedRows<T>& shared = packed;
  const size_t width = panel_width<T>();
  const size_t panels = (w.rows + width - 1) / width;
  const size_t chunks = (rows + chunk_rows - 1) / chunk_rows;
#pragma omp parallel for schedule(dynamic, 1)
  for (size_t task = 0; task < panels * chunks; ++task) {
    const size_t r0 = task / panels * chunk_rows;
    matmul_task(shared, r0, std::min(rows, r0 + chunk_rows), w, task % panels * width, y);
  }
}

template <class T>
void scores(const T* q, size_t rows, const T* k, size_t keys, size_t head_dim, T scale, T* scores,
            size_t stride) {
  const size_t width = panel_width<T>();
  Scratch<T>& buffers = scratch<T>();
  buffers.packed.assign(q, rows, head_dim, head_dim);
  buffers.panel.resize(chain_block * width);
  for (size_t j = 0; j < keys; j += width) {
    const size_t count = std::min(width, keys - j);
    buffers.sums.reset(rows * width);
    for (size_t k0 = 0; k0 < head_dim; k0 += chain_block) {
      const size_t depth = std::min(chain_block, head_dim - k0);
      if (k0 > 0 && k0 % chain_span == 0) buffers.sums.end_span();
      pack([=](size_t i) { return k + (j + i) * head_dim + k0; }, count, depth,
           buffers.panel.data(), width);
      add_block(buffers.packed.block(k0), 0, rows, depth, buffers.panel.data(), width,
                buffers.sums.span.data(), width);
    }
    buffers.sums.end_span();
    for (size_t r = 0; r < rows; ++r)
      for (size_t i = 0; i < count; ++i)
        scores[r * stride + j + i] = scale * buffers.sums.total[r * width + i];
  }
}

/// exp_spec of every lane, step by step.
template <class D, class V = hn::Vec<D>>
HWY_INLINE V exp_lanes(D d, V x) {
  using T = hn::TFromD<D>;
  using C = ExpConstants<T>;
  const hn::Rebind<typename C::Int, D> di;
  const V original = x;
  x = hn::IfThenElse(hn::Lt(x, hn::Set(d, C::lowest)), hn::Set(d, C::lowest), x);
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
  const V scaled = hn::Mul(hn::Mul(e, power(half)), power(hn::Sub(whole, half)));
  return hn::IfThenElse(hn::IsNaN(original), original, scaled);
}

/// Σ values[0, n) in double over the virtual lanes; n is a multiple of sum_lanes.
template <class T>
HWY_INLINE double sum_in_lanes(const T* values, size_t n) {
  const hn::ScalableTag<double> d;
  constexpr size_t most = sum_lanes / 2;  // vectors of double on the narrowest target
  const size_t lanes = hn::Lanes(d), used = sum_lanes / lanes;
  hn::Vec<decltype(d)> sum[most];
  HWY_UNROLL(8)
  for (size_t v = 0; v < most; ++v) sum[v] = hn::Zero(d);
  for (size_t i = 0; i < n; i += sum_lanes)
    for (size_t v = 0; v < used; ++v) {
      const T* from = values + i + v * lanes;
      if constexpr (sizeof(T) == 4) {
        sum[v] = hn::Add(sum[v], hn::PromoteTo(d, hn::LoadU(hn::Rebind<float, decltype(d)>(), from)));
      } else {
        sum[v] = hn::Add(sum[v], hn::LoadU(d, from));
      }
    }
  std::array<double, sum_lanes> lane;
  for (size_t v = 0; v < used; ++v) hn::StoreU(sum[v], d, lane.data() + v * lanes);
  return add_lanes(lane);
}

template <class T>
void softmax(T* row, size_t keys, Visible visible, Softmax variant) {
  const hn::ScalableTag<T> d;
  const size_t lanes = hn::Lanes(d);
  const size_t padded = (keys + sum_lanes - 1) / sum_lanes * sum_lanes;
  const T unseen = -std::numeric_limits<T>::infinity();  // exp of it is exactly 0
  std::fill(row, row + visible.begin, unseen);
  std::fill(row + visible.end, row + padded, unseen);

  auto most = hn::Set(d, variant == Softmax::one ? T(0) : unseen);
  for (size_t i = 0; i < padded; i += lanes) {
    const auto x = hn::LoadU(d, row + i);
    most = hn::IfThenElse(hn::Gt(x, most), x, most);
  }
  const T largest = hn::GetLane(hn::MaxOfLanes(d, most));

  for (size_t i = 0; i < padded; i += lanes)
    hn::StoreU(exp_lanes(d, hn::Sub(hn::LoadU(d, row + i), hn::Set(d, largest))), d, row + i);
  double sum = sum_in_lanes(row, padded);
  if (variant == Softmax::one) sum += static_cast<double>(exp_spec(-largest));
  const auto inverse = hn::Set(d, static_cast<T>(1.0 / sum));
  for (size_t i = 0; i < padded; i += lanes)
    hn::StoreU(hn::Mul(hn::LoadU(d, row + i), inverse), d, row + i);
}

/// Blocks that every row sees whole go through the register tiles; the ragged ends of a causal or
/// sliding window go row by row, so that no unseen value is ever touched.
template <class T>
void weighted_sum(const T* p, size_t rows, size_t stride, const Visible* visible, const T* v,
                  size_t head_dim, T* z) {
  const size_t width = panel_width<T>();
  const size_t panels = (head_dim + width - 1) / width;
  size_t keys = 0, begin = visible[0].begin;
  for (size_t r = 0; r < rows; ++r) {
    keys = std::max(keys, visible[r].end);
    begin = std::min(begin, visible[r].begin);
  }
  Scratch<T>& buffers = scratch<T>();
  const size_t step = panels * width;
  buffers.sums.reset(rows * step);
  buffers.panel.assign(chain_block * step, T(0));
  for (size_t k0 = begin / chain_block * chain_block; k0 < keys; k0 += chain_block) {
    if (k0 % chain_span == 0) buffers.sums.end_span();
    const size_t k1 = std::min(keys, k0 + chain_block);
    for (size_t k = k0; k < k1; ++k)
      std::copy_n(v + k * head_dim, head_dim, buffers.panel.data() + (k - k0) * step);
    const auto sees_all = [&](size_t r) { return visible[r].begin <= k0 && visible[r].end >= k1; };
    for (size_t r = 0; r < rows;) {
      size_t end = r;
      while (end < rows && end - r < tile_rows && sees_all(end)) ++end;
      const size_t from = end > r ? k0 : std::max(k0, visible[r].begin);
      const size_t to = end > r ? k1 : std::min(k1, visible[r].end);
      end = std::max(end, r + 1);
      if (to > from) {
        T packed[chain_block * tile_rows];
        pack([=](size_t i) { return p + (r + i) * stride + from; }, end - r, to - from, packed,
             end - r);
        for (size_t n = 0; n < step; n += width)
          tile_of(end - r, to - from, packed, buffers.panel.data() + (from - k0) * step + n, step,
                  buffers.sums.span.data() + r * step + n, step);
      }
      r = end;
    }
  }
  buffers.sums.end_span();
  for (size_t r = 0; r < rows; ++r)
    std::copy_n(buffers.sums.total.data() + r * step, head_dim, z + r * head_dim);
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

template <class T>
const Kernels<T>* table(const char* name) {
  static const Kernels<T> kernels{name,       matmul<T>,       scores<T>,
                                  softmax<T>, weighted_sum<T>, silu_mul<T>};
  return &kernels;
}

const Kernels<float>* float_table(const char* name) { return table<float>(name); }
const Kernels<double>* double_table(const char* name) { return table<double>(name); }

}  // namespace HWY_NAMESPACE
}  // namespace sinkref
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sinkref {

namespace {

template <class T, class Table32, class Table64>
const Kernels<T>* of_type(const char* name, Table32 table32, Table64 table64) {
  if constexpr (sizeof(T) == 4) return table32(name);
  else return table64(name);
}

template <class T>
const Kernels<T>* find(const std::string& target) {
  const bool best = target == "auto";
  [[maybe_unused]] const int64_t runs = hwy::SupportedTargets();
#if HWY_TARGETS & HWY_AVX3
  if ((best || target == "avx512") && (runs & HWY_AVX3))
    return of_type<T>("avx512", N_AVX3::float_table, N_AVX3::double_table);
#endif
#if HWY_TARGETS & HWY_AVX2
  if ((best || target == "avx2") && (runs & HWY_AVX2))
    return of_type<T>("avx2", N_AVX2::float_table, N_AVX2::double_table);
#endif
#if HWY_TARGETS & HWY_NEON
  if ((best || target == "neon") && (runs & HWY_NEON))
    return of_type<T>("neon", N_NEON::float_table, N_NEON::double_table);
#endif
  return nullptr;
}

}  // namespace

const Kernels<float>* simd_kernels(const std::string& target, float) { return find<float>(target); }
const Kernels<double>* simd_kernels(const std::string& target, double) {
  return find<double>(target);
}

}  // namespace sinkref
#endif  // HWY_ONCE
