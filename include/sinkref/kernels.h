#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "sinkref/number.h"
#include "sinkref/tensor.h"

namespace sinkref {

/// Positions per panel of the key cache.
inline constexpr size_t cache_panel = 32;
/// n rounded up to whole panels.
constexpr size_t cache_padded(size_t n) {
  return (n + cache_panel - 1) / cache_panel * cache_panel;
}
/// Where the key cache of one head holds element i of the key at `position`: panels of positions,
/// transposed, so that vector lanes hold different keys.
constexpr size_t key_index(size_t position, size_t i, size_t head_dim) {
  return (position / cache_panel * head_dim + i) * cache_panel + position % cache_panel;
}

/// One of several matrices that the same rows are multiplied with: y (rows, w.rows) = x wᵀ.
template <class T>
struct Product {
  const StoredMatrix* w;
  T* y;
};

/// The sums of a transformer, all that speed is needed for. Every implementation gives the bits of
/// definition.h; "spec" is that text itself. T is float, or double for the truth.
/// Pointers may be unaligned. Outputs do not overlap inputs.
template <class T>
struct Kernels {
  const char* name;

  /// For each product: y (rows, w.rows) = x (rows, w.cols) · wᵀ, each output one chain (number.h) over
  /// w.cols. All products have the same w.cols. Uses all threads; each output belongs to one.
  void (*matmuls)(const T* x, size_t rows, std::span<const Product<T>> products);
  void matmul(const T* x, size_t rows, const StoredMatrix& w, T* y) const {
    const Product<T> one{&w, y};
    matmuls(x, rows, {&one, 1});
  }

  /// scores (rows, keys), rows `stride` apart = scale · (q (rows, head_dim) · kᵀ): a chain
  /// over head_dim, then one product. k is a key cache (key_index). One thread. There is room for
  /// cache_padded(keys) scores in each row; those past `keys` are undefined afterwards.
  void (*scores)(const T* q, size_t rows, const T* k, size_t keys, size_t head_dim, T scale,
                 T* scores, size_t stride);

  /// row[i] = exp(row[i] - max) / Σ exp over the visible i, in place; 0 elsewhere in [0, keys).
  /// The row has room up to a multiple of sum_lanes.
  void (*softmax)(T* row, size_t keys, Visible visible, Softmax variant);

  /// What the row's largest becomes in its softmax, all visible: 1 / Σ exp(row[i] - largest).
  T (*softmax_largest)(const T* row, size_t keys, T largest);

  /// z (rows, head_dim) = p (rows, keys; `stride` apart) · v (keys, head_dim): a chain over
  /// positions, whose blocks and spans begin at absolute multiples. Row r sums visible[r]. Rows of
  /// v lie cache_padded(head_dim) apart.
  void (*weighted_sum)(const T* p, size_t rows, size_t stride, const Visible* visible, const T* v,
                       size_t head_dim, T* z);

  /// post[i] = silu(gate[i]) · up[i]. post may be gate.
  void (*silu_mul)(const T* gate, const T* up, size_t n, T* post);
};

/// The implementations: "spec", "avx2", "avx512", "neon", or "auto" for the best this machine has.
/// "openblas" replaces the products by OpenBLAS's, whose bits differ (see src/arithmetic/openblas.cpp).
/// Throws InputError for a name that is unknown or that this machine cannot run.
template <class T>
const Kernels<T>& find_kernels(const std::string& name);

/// Names of the kernels of this machine that give the bits of "spec", which is first.
std::vector<std::string> available_kernels();

/// InputError unless this machine has a fused multiply-add, which the arithmetic needs.
void require_fma();

}  // namespace sinkref
