// Products by OpenBLAS: an independent third opinion. Its order of a sum depends on the processor,
// the threads and the number of rows, so its bits are nobody's promise: it is held to the bound that
// every order of a sum obeys (tests/openblas_test.cpp), and is never chosen by "auto".

#include "arithmetic/openblas.h"

#include <dlfcn.h>

#include <algorithm>

#include "arithmetic/tables.h"
#include "base/threads.h"
#include "sinkref/error.h"

namespace sinkref {

namespace {

constexpr size_t panel_rows = 512;  // weight rows that are widened at a time

// Of cblas.h, which every BLAS shares.
constexpr int row_major = 101, as_it_is = 111, transposed = 112;
template <class T>
using Gemm = void (*)(int order, int transpose_a, int transpose_b, int m, int n, int k, T alpha,
                      const T* a, int lda, const T* b, int ldb, T beta, T* c, int ldc);

/// The library, loaded when it is first asked for: it starts its threads at once, with 128 MB of
/// address space each.
struct OpenBlas {
  Gemm<float> sgemm;
  Gemm<double> dgemm;
  void (*set_threads)(int);
  char* (*core)();

  OpenBlas() {
    constexpr const char* file = "libopenblas.so.0";
    constexpr const char* remedy = "install it (Debian: libopenblas0) or choose another kernel";
    void* library = ::dlopen(file, RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr)
      refuse(file, "cannot be loaded (" + std::string(::dlerror()) + "), expected OpenBLAS", remedy);
    const auto find = [&]<class F>(F& function, const char* name) {
      function = reinterpret_cast<F>(::dlsym(library, name));
      if (function == nullptr) refuse(file, "has no function " + quoted(name) + ", expected it", remedy);
    };
    find(sgemm, "cblas_sgemm");
    find(dgemm, "cblas_dgemm");
    find(set_threads, "openblas_set_num_threads");
    find(core, "openblas_get_corename");
  }
};

const OpenBlas& openblas() {
  static const OpenBlas library;
  return library;
}

/// y (rows, count; y_step apart) = x (rows, depth) · wᵀ, w (count, depth)
void product(const float* x, size_t rows, const float* w, size_t count, size_t depth, float* y,
             size_t y_step) {
  openblas().sgemm(row_major, as_it_is, transposed, static_cast<int>(rows), static_cast<int>(count),
                   static_cast<int>(depth), 1, x, static_cast<int>(depth), w,
                   static_cast<int>(depth), 0, y, static_cast<int>(y_step));
}
void product(const double* x, size_t rows, const double* w, size_t count, size_t depth, double* y,
             size_t y_step) {
  openblas().dgemm(row_major, as_it_is, transposed, static_cast<int>(rows), static_cast<int>(count),
                   static_cast<int>(depth), 1, x, static_cast<int>(depth), w,
                   static_cast<int>(depth), 0, y, static_cast<int>(y_step));
}

bool is_plain_float(const StoredMatrix& w) {
  return w.dtype == DType::F32 && w.interleaved_head_dim == 0 &&
         reinterpret_cast<uintptr_t>(w.data) % alignof(float) == 0;
}

template <class T>
void matmul(const T* x, size_t rows, const StoredMatrix& w, T* y) {
  openblas().set_threads(static_cast<int>(thread_count()));
  if constexpr (sizeof(T) == sizeof(float))
    if (is_plain_float(w))
      return product(x, rows, reinterpret_cast<const T*>(w.data), w.rows, w.cols, y, w.rows);
  std::vector<T> panel(std::min(panel_rows, w.rows) * w.cols);
  for (size_t n = 0; n < w.rows; n += panel_rows) {
    const size_t count = std::min(panel_rows, w.rows - n);
    parallel_for(count, [&](size_t i) {
      const std::vector<float> row = widen_row(w, n + i);
      std::copy(row.begin(), row.end(), panel.begin() + static_cast<std::ptrdiff_t>(i * w.cols));
    });
    product(x, rows, panel.data(), count, w.cols, y + n, w.rows);
  }
}

/// The best vector kernels with the products replaced.
template <class T>
const Kernels<T>& table() {
  static const Kernels<T> kernels = [] {
    const Kernels<T>* best = simd_kernels("auto", T{});
    Kernels<T> k = best != nullptr ? *best : spec_kernels(T{});
    openblas();  // a missing library is named here
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

std::string openblas_core() { return openblas().core(); }

}  // namespace sinkref
