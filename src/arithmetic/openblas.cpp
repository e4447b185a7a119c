// Products by OpenBLAS: an independent third opinion. Its order of a sum depends on the processor,
// the threads and the number of rows, so its bits are nobody's promise: it is held to the bound that
// every order of a sum obeys (tests/openblas_test.cpp), and is never chosen by "auto".

#include <cblas.h>
#include <omp.h>

#include <algorithm>

#include "arithmetic/tables.h"

namespace sinkref {

namespace {

constexpr size_t panel_rows = 512;  // weight rows that are widened at a time

/// y (rows, count; y_step apart) = x (rows, depth) · wᵀ, w (count, depth)
void product(const float* x, size_t rows, const float* w, size_t count, size_t depth, float* y,
             size_t y_step) {
  cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, static_cast<int>(rows),
              static_cast<int>(count), static_cast<int>(depth), 1, x, static_cast<int>(depth), w,
              static_cast<int>(depth), 0, y, static_cast<int>(y_step));
}
void product(const double* x, size_t rows, const double* w, size_t count, size_t depth, double* y,
             size_t y_step) {
  cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasTrans, static_cast<int>(rows),
              static_cast<int>(count), static_cast<int>(depth), 1, x, static_cast<int>(depth), w,
              static_cast<int>(depth), 0, y, static_cast<int>(y_step));
}

bool is_plain_float(const StoredMatrix& w) {
  return w.dtype == DType::F32 && w.interleaved_head_dim == 0 &&
         reinterpret_cast<uintptr_t>(w.data) % alignof(float) == 0;
}

template <class T>
void matmul(const T* x, size_t rows, const StoredMatrix& w, T* y) {
  openblas_set_num_threads(omp_get_max_threads());
  if constexpr (sizeof(T) == sizeof(float))
    if (is_plain_float(w))
      return product(x, rows, reinterpret_cast<const T*>(w.data), w.rows, w.cols, y, w.rows);
  std::vector<T> panel(std::min(panel_rows, w.rows) * w.cols);
  for (size_t n = 0; n < w.rows; n += panel_rows) {
    const size_t count = std::min(panel_rows, w.rows - n);
#pragma omp parallel for schedule(static)
    for (size_t i = 0; i < count; ++i) {
      const std::vector<float> row = widen_row(w, n + i);
      std::copy(row.begin(), row.end(), panel.begin() + static_cast<std::ptrdiff_t>(i * w.cols));
    }
    product(x, rows, panel.data(), count, w.cols, y + n, w.rows);
  }
}

/// The best vector kernels with the products replaced.
template <class T>
const Kernels<T>& table() {
  static const Kernels<T> kernels = [] {
    const Kernels<T>* best = simd_kernels("auto", T{});
    Kernels<T> k = best != nullptr ? *best : spec_kernels(T{});
    k.name = "openblas";
    k.matmuls = [](const T* x, size_t rows, std::span<const Product<T>> products) {
      for (const auto& [w, y] : products) matmul(x, rows, *w, y);
    };
    return k;
  }();
  return kernels;
}

}  // namespace

const Kernels<float>& openblas_kernels(float) { return table<float>(); }
const Kernels<double>& openblas_kernels(double) { return table<double>(); }

}  // namespace sinkref
