// q kᵀ and p v on the key/value cache, whose layout already is what tiles read.

#if defined(SINKREF_SIMD_ATTENTION_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef SINKREF_SIMD_ATTENTION_INL_H
#undef SINKREF_SIMD_ATTENTION_INL_H
#else
#define SINKREF_SIMD_ATTENTION_INL_H
#endif

#include "arithmetic/simd/matmul-inl.h"

HWY_BEFORE_NAMESPACE();
namespace sinkref {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

inline constexpr size_t value_depth = 4 * chain_block;  // keys at a time, whose values a core's first cache holds
static_assert(chain_span % value_depth == 0);

/// Scores of up to tile_rows queries with two vectors of keys.
template <class T>
HWY_INLINE void score_tile(const T* q, size_t rows, const T* k, size_t head_dim, T scale, T* out,
                           size_t stride) {
  const hn::ScalableTag<T> d;
  const size_t lanes = hn::Lanes(d), width = 2 * lanes;
  alignas(64) T span[tile_rows * 2 * hn::MaxLanes(d)];
  alignas(64) T total[tile_rows * 2 * hn::MaxLanes(d)];
  Idle idle;
  for (size_t k0 = 0; k0 < head_dim; k0 += chain_span) {
    const size_t depth = std::min(chain_span, head_dim - k0);
    with_height(rows, [&](auto height) SINKREF_LAMBDA {
      tile<height(), 2>(PlainRows<T>{q + k0, head_dim}, k + k0 * cache_panel, cache_panel, depth,
                        true, span, width, idle);
    });
    if (head_dim <= chain_span) break;
    for (size_t i = 0; i < rows * width; ++i) total[i] = k0 == 0 ? span[i] : total[i] + span[i];
  }
  const T* sums = head_dim <= chain_span ? span : total;
  for (size_t r = 0; r < rows; ++r)
    for (size_t i = 0; i < width; i += lanes) {
      const auto sum = hn::Add(hn::LoadU(d, sums + r * width + i), hn::Zero(d));
      hn::StoreU(hn::Mul(hn::Set(d, scale), sum), d, out + r * stride + i);
    }
}

template <class T>
void scores(const T* q, size_t rows, const T* k, size_t keys, size_t head_dim, T scale, T* scores,
            size_t stride) {
  const size_t width = 2 * lanes_of<T>();
  for (size_t j = 0; j < keys; j += width)
    for (size_t r = 0; r < rows; r += tile_rows)
      score_tile(q + r * head_dim, std::min(tile_rows, rows - r),
                 k + j / cache_panel * cache_panel * head_dim + j % cache_panel, head_dim, scale,
                 scores + r * stride + j, stride);
}

/// Adds one block of keys [k0, k1), of `width` values each, to the sums t of R rows of p. No value that
/// a row does not see is touched: what all rows see goes through one tile, the ragged ends of a mask
/// row by row.
template <size_t R, class T>
HWY_INLINE void value_block(PlainRows<T> p, const Visible* visible, const T* v, size_t v_step,
                            size_t width, size_t k0, size_t k1, bool fresh, T* t, size_t t_step) {
  size_t begin = k0, end = k1;
  HWY_UNROLL(12)
  for (size_t r = 0; r < R; ++r) {
    begin = std::max(begin, visible[r].begin);
    end = std::min(end, visible[r].end);
  }
  if (begin >= end) begin = end = k1;  // nothing in common
  for (size_t n = 0; n < width; n += 2 * lanes_of<T>()) {
    hn::Vec<hn::ScalableTag<T>> s[R][2];
    clear(s);
    const auto ragged = [&](bool before) SINKREF_LAMBDA {
      HWY_UNROLL(12)
      for (size_t r = 0; r < R; ++r) {
        const size_t from = before ? std::max(k0, visible[r].begin) : end;
        const size_t to = std::min(before ? begin : k1, visible[r].end);
        if (from >= to) continue;
        hn::Vec<hn::ScalableTag<T>> row[1][2] = {{s[r][0], s[r][1]}};
        extend_chains<1, 2>(PlainRows<T>{p.data + r * p.stride, 0}, v + n, v_step, from, to, row);
        s[r][0] = row[0][0];
        s[r][1] = row[0][1];
      }
    };
    if (begin > k0) ragged(true);
    extend_chains<R, 2>(p, v + n, v_step, begin, end, s);
    if (end < k1) ragged(false);
    HWY_UNROLL(12)
    for (size_t r = 0; r < R; ++r) add_chain(s[r], fresh, t + r * t_step + n);
  }
}

/// The same for some blocks, keys [k0, k1): in one tile if all rows see all of them.
template <size_t R, class T>
HWY_INLINE void value_blocks(PlainRows<T> p, const Visible* visible, const T* v, size_t v_step, size_t width,
                             size_t k0, size_t k1, bool fresh, T* t, size_t t_step) {
  bool all = true;
  for (size_t r = 0; r < R; ++r) all = all && visible[r].begin <= k0 && visible[r].end >= k1;
  if (!all) {
    for (; k0 < k1; k0 += chain_block, fresh = false)
      value_block<R>(p, visible, v, v_step, width, k0, std::min(k1, k0 + chain_block), fresh, t, t_step);
    return;
  }
  Idle idle;
  for (size_t n = 0; n < width; n += 2 * lanes_of<T>())
    tile<R, 2>(PlainRows<T>{p.data + k0, p.stride}, v + k0 * v_step + n, v_step, k1 - k0, fresh, t + n, t_step, idle);
}

template <class T>
void weighted_sum(const T* p, size_t rows, size_t stride, const Visible* visible, const T* v,
                  size_t head_dim, T* z) {
  const size_t step = cache_padded(head_dim);
  size_t keys = 0, begin = visible[0].begin;
  for (size_t r = 0; r < rows; ++r) {
    keys = std::max(keys, visible[r].end);
    begin = std::min(begin, visible[r].begin);
  }
  Sums<T>& sums = scratch<T>().sums;
  sums.reset(rows * step);
  for (size_t k0 = begin / value_depth * value_depth; k0 < keys; k0 += value_depth) {
    if (k0 % chain_span == 0 && !sums.fresh) sums.end_span();
    const size_t k1 = std::min(keys, k0 + value_depth);
    for (size_t r = 0; r < rows; r += tile_rows)
      with_height(std::min(tile_rows, rows - r), [&](auto height) SINKREF_LAMBDA {
        value_blocks<height()>(PlainRows<T>{p + r * stride, stride}, visible + r, v, step, head_dim,
                              k0, k1, sums.fresh, sums.span.data() + r * step, step);
      });
    sums.end_block();
  }
  for (size_t r = 0; r < rows; ++r) sums.result(r * step, head_dim, z + r * head_dim);
}

}  // namespace HWY_NAMESPACE
}  // namespace sinkref
HWY_AFTER_NAMESPACE();

#endif  // SINKREF_SIMD_ATTENTION_INL_H
