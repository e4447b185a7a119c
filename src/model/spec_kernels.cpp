// The sums of definition.h as a table of kernels: what the vector kernels are tested against, and what
// runs where a product is asked for alone.

#include "arithmetic/tables.h"
#include "sinkref/definition.h"

namespace sinkref {

namespace {

template <class T>
void matmuls(const T* x, size_t rows, std::span<const Product<T>> products) {
  if (products.empty()) return;
  const size_t cols = products[0].w->cols;
  Matrix<T> in(rows, cols);
  std::copy_n(x, rows * cols, in[0]);
  for (const Product<T>& product : products) {
    const Matrix<T> out = definition::linear<T>(in, *product.w, {});
    std::copy_n(out[0], rows * out.cols, product.y);
  }
}

template <class T>
void scores(const T* q, size_t rows, const T* k, size_t keys, size_t head_dim, T scale, T* scores,
            size_t stride) {
  for (size_t r = 0; r < rows; ++r)
    for (size_t j = 0; j < keys; ++j)
      scores[r * stride + j] =
          scale * chain<T>(0, head_dim, [&](size_t i) { return q[r * head_dim + i]; },
                           [&](size_t i) { return k[key_index(j, i, head_dim)]; });
}

template <class T>
void softmax(T* row, size_t keys, Visible visible, Softmax variant) {
  definition::softmax(row, keys, visible, variant);
}

template <class T>
T softmax_largest(const T* row, size_t keys, T largest) {
  return Number<T>::narrow(
      1.0 / lane_sum<T>(0, keys, [&](size_t i) { return Number<T>::wide(exp_spec(row[i] - largest)); }));
}

template <class T>
void weighted_sum(const T* p, size_t rows, size_t stride, const Visible* visible, const T* v,
                  size_t head_dim, T* z) {
  for (size_t r = 0; r < rows; ++r)
    for (size_t d = 0; d < head_dim; ++d)
      z[r * head_dim + d] =
          chain<T>(visible[r].begin, visible[r].end, [&](size_t j) { return p[r * stride + j]; },
                   [&](size_t j) { return v[j * cache_padded(head_dim) + d]; });
}

template <class T>
void silu_mul(const T* gate, const T* up, size_t n, T* post) {
  for (size_t i = 0; i < n; ++i) post[i] = definition::silu(gate[i]) * up[i];
}

template <class T>
constexpr Kernels<T> table{"spec",     matmuls<T>,         scores<T>,
                           softmax<T>, softmax_largest<T>, weighted_sum<T>, silu_mul<T>};

}  // namespace

const Kernels<float>& spec_kernels(float) { return table<float>; }
const Kernels<double>& spec_kernels(double) { return table<double>; }

}  // namespace sinkref
