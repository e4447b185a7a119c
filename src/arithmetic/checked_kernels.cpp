// The kernels of a build with checks: each is its caller's first reader. A wrong width would otherwise be
// an overrun of the heap that nobody sees, in vector code that sanitizers know little of.

#include <algorithm>
#include <array>
#include <stdexcept>
#include <utility>

#include "arithmetic/tables.h"
#include "sinkref/check.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#include <sanitizer/asan_interface.h>
#define __SANITIZE_ADDRESS__ 1
#endif
#endif

namespace sinkref {

namespace {

/// `count` numbers lie at p; `what` is named if they do not.
template <class T>
void require_memory([[maybe_unused]] const char* what, [[maybe_unused]] const T* p,
                    [[maybe_unused]] size_t count) {
#ifdef __SANITIZE_ADDRESS__
  const void* bad = __asan_region_is_poisoned(const_cast<T*>(p), count * sizeof(T));
  if (bad == nullptr) return;
  throw std::logic_error(std::string(what) + ": expected memory for " + std::to_string(count) +
                         " numbers, found " +
                         std::to_string((static_cast<const char*>(bad) - reinterpret_cast<const char*>(p)) /
                                        static_cast<long>(sizeof(T))));
#endif
}

void require_visible(const Visible& visible, size_t keys) {
  SINKREF_CHECK(visible.begin, <=, visible.end);
  SINKREF_CHECK(visible.end, <=, keys);
}

/// Entries of a table are plain functions: those of every table that is checked have a slot of their own.
template <class T, size_t slot>
struct Checked {
  static inline const Kernels<T>* inner = nullptr;

  static void matmuls(const T* x, size_t rows, std::span<const Product<T>> products) {
    for (const Product<T>& p : products) {
      SINKREF_CHECK(p.w->cols, ==, products.front().w->cols);
      SINKREF_CHECK(p.w->cols % dtype_info(p.w->dtype).block, ==, 0u);
      require_memory("x of a product", x, rows * p.w->cols);
      require_memory("w of a product", p.w->data, p.w->rows * p.w->row_bytes());
      require_memory("y of a product", p.y, rows * p.w->rows);
    }
    inner->matmuls(x, rows, products);
  }
  static void scores(const T* q, size_t rows, const T* k, size_t keys, size_t head_dim, T scale,
                     T* scores, size_t stride) {
    SINKREF_CHECK(stride, >=, cache_padded(keys));
    require_memory("q", q, rows * head_dim);
    require_memory("k", k, cache_padded(keys) * head_dim);
    require_memory("scores", scores, rows == 0 ? 0 : (rows - 1) * stride + cache_padded(keys));
    inner->scores(q, rows, k, keys, head_dim, scale, scores, stride);
  }
  static void softmax(T* row, size_t keys, Visible visible, Softmax variant) {
    require_visible(visible, keys);
    require_memory("row of softmax", row, (keys + sum_lanes - 1) / sum_lanes * sum_lanes);
    inner->softmax(row, keys, visible, variant);
  }
  static T softmax_largest(const T* row, size_t keys, T largest) {
    require_memory("row of softmax", row, keys);
    return inner->softmax_largest(row, keys, largest);
  }
  static void weighted_sum(const T* p, size_t rows, size_t stride, const Visible* visible, const T* v,
                           size_t head_dim, T* z) {
    size_t keys = 0;
    for (size_t r = 0; r < rows; ++r) {
      require_visible(visible[r], stride);
      require_memory("p", p + r * stride, visible[r].end);
      keys = std::max(keys, visible[r].end);
    }
    require_memory("v", v, keys * cache_padded(head_dim));
    require_memory("z", z, rows * head_dim);
    inner->weighted_sum(p, rows, stride, visible, v, head_dim, z);
  }
  static void silu_mul(const T* gate, const T* up, size_t n, T* post) {
    require_memory("gate", gate, n);
    require_memory("up", up, n);
    require_memory("post", post, n);
    inner->silu_mul(gate, up, n, post);
  }
  static const Kernels<T>* table(const Kernels<T>& kernels) {
    if (inner != nullptr && inner != &kernels) return nullptr;
    inner = &kernels;
    static const Kernels<T> checks{kernels.name,    matmuls,      scores,  softmax,
                                   softmax_largest, weighted_sum, silu_mul};
    return &checks;
  }
};

template <class T, size_t... slots>
const Kernels<T>& in_a_slot(const Kernels<T>& kernels, std::index_sequence<slots...>) {
  const Kernels<T>* table = nullptr;
  (void)(((table = Checked<T, slots>::table(kernels)) != nullptr) || ...);
  if (table == nullptr) throw std::logic_error("more kernels than there are slots for their checks");
  return *table;
}

}  // namespace

template <class T>
const Kernels<T>& checked(const Kernels<T>& kernels) {
  return in_a_slot(kernels, std::make_index_sequence<8>());
}
template const Kernels<float>& checked(const Kernels<float>&);
template const Kernels<double>& checked(const Kernels<double>&);

}  // namespace sinkref
