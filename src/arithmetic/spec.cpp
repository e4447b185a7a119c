// The definition of sinkref's arithmetic, as a scalar text. Every other kernel equals it bit for
// bit; what is not stated here (threads, tiles, vector width) does not exist for the result.

#include <algorithm>
#include <limits>

#include "arithmetic/scalar_math.h"
#include "arithmetic/tables.h"
#include "base/threads.h"

namespace sinkref {

namespace {

/// Σ x[i]·w[i·w_step] over i in [begin, end); blocks and spans begin at multiples of their length.
template <class T>
T blocked_chain(const T* x, const T* w, size_t w_step, size_t begin, size_t end) {
  T total = 0;
  for (size_t span = begin / chain_span * chain_span; span < end; span += chain_span) {
    T t = 0;
    const size_t span_end = std::min(end, span + chain_span);
    for (size_t block = span; block < span_end; block += chain_block) {
      T s = 0;
      const size_t block_end = std::min(span_end, block + chain_block);
      for (size_t i = std::max(begin, block); i < block_end; ++i)
        s = std::fma(x[i], w[i * w_step], s);
      t = t + s;
    }
    total = total + t;
  }
  return total;
}

template <class T>
void matmuls(const T* x, size_t rows, std::span<const Product<T>> products) {
  for (const Product<T>& product : products) {
    const StoredMatrix& w = *product.w;
    parallel_for(w.rows, [&](size_t n) {
      const std::vector<float> stored = widen_row(w, n);
      const std::vector<T> weights(stored.begin(), stored.end());
      for (size_t r = 0; r < rows; ++r)
        product.y[r * w.rows + n] = blocked_chain(x + r * w.cols, weights.data(), 1, 0, w.cols);
    });
  }
}

template <class T>
void scores(const T* q, size_t rows, const T* k, size_t keys, size_t head_dim, T scale, T* scores,
            size_t stride) {
  for (size_t r = 0; r < rows; ++r)
    for (size_t j = 0; j < keys; ++j)
      scores[r * stride + j] = scale * blocked_chain(q + r * head_dim, k + key_index(j, 0, head_dim),
                                                     cache_panel, 0, head_dim);
}

template <class T>
void softmax(T* row, size_t keys, Visible visible, Softmax variant) {
  T largest = variant == Softmax::one ? T(0) : -std::numeric_limits<T>::infinity();
  for (size_t i = visible.begin; i < visible.end; ++i)
    largest = row[i] > largest ? row[i] : largest;
  std::array<double, sum_lanes> lane{};
  for (size_t i = 0; i < keys; ++i) {
    const bool seen = i >= visible.begin && i < visible.end;
    row[i] = seen ? exp_spec(row[i] - largest) : T(0);
    lane[i % sum_lanes] += static_cast<double>(row[i]);
  }
  double sum = add_lanes(lane);
  if (variant == Softmax::one) sum += static_cast<double>(exp_spec(-largest));
  const T inverse = static_cast<T>(1.0 / sum);
  for (size_t i = 0; i < keys; ++i) row[i] *= inverse;
}

template <class T>
T softmax_largest(const T* row, size_t keys, T largest) {
  std::array<double, sum_lanes> lane{};
  for (size_t i = 0; i < keys; ++i) lane[i % sum_lanes] += static_cast<double>(exp_spec(row[i] - largest));
  return static_cast<T>(1.0 / add_lanes(lane));
}

template <class T>
void weighted_sum(const T* p, size_t rows, size_t stride, const Visible* visible, const T* v,
                  size_t head_dim, T* z) {
  for (size_t r = 0; r < rows; ++r)
    for (size_t d = 0; d < head_dim; ++d)
      z[r * head_dim + d] =
          blocked_chain(p + r * stride, v + d, cache_padded(head_dim), visible[r].begin,
                        visible[r].end);
}

template <class T>
void silu_mul(const T* gate, const T* up, size_t n, T* post) {
  for (size_t i = 0; i < n; ++i) post[i] = silu_mul_spec(gate[i], up[i]);
}

template <class T>
constexpr Kernels<T> table{"spec",     matmuls<T>,         scores<T>,
                           softmax<T>, softmax_largest<T>, weighted_sum<T>, silu_mul<T>};

}  // namespace

const Kernels<float>& spec_kernels(float) { return table<float>; }
const Kernels<double>& spec_kernels(double) { return table<double>; }

}  // namespace sinkref
