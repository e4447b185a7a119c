#pragma once

#include <cstddef>
#include <cstdint>
#include <new>
#include <span>
#include <string>
#include <vector>

#include "sinkref/check.h"

namespace sinkref {

/// How numbers are stored in a checkpoint. All of them widen to fp32 exactly, or by the formula of
/// the `gguf` package bit for bit (the block types), so a stored tensor *is* a matrix of fp32.
enum class DType { F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K, Q6_K };

/// How a dtype lies in the file; block types keep a scale (and a minimum) for each block.
struct DTypeInfo {
  const char* name;
  size_t block;  ///< elements that are stored together: 1, 32 or 256
  size_t bytes;  ///< bytes of one such block
};
const DTypeInfo& dtype_info(DType dtype);

/// Where GGUF stores row `r` of q_proj or k_proj: within each head, rows of the two rotation halves
/// alternate (half-split row i lies at 2i, row head_dim/2 + i at 2i + 1).
size_t interleaved_row(size_t r, size_t head_dim);

/// A weight matrix as it lies in the (memory-mapped) file: rows = outputs, cols = inputs, as in
/// Hugging Face. Nothing is copied; pages are read when a row is used.
struct StoredMatrix {
  const std::byte* data = nullptr;
  DType dtype = DType::F32;
  size_t rows = 0;
  size_t cols = 0;
  /// GGUF stores the rows of q_proj and k_proj with each head's two rotation halves interleaved.
  /// If not 0, this is the head dimension, and row() undoes the interleaving.
  size_t interleaved_head_dim = 0;

  size_t row_bytes() const { return cols / dtype_info(dtype).block * dtype_info(dtype).bytes; }
  /// Row r in Hugging Face's order.
  const std::byte* row(size_t r) const;
  /// The row at a place in the file, and its number in Hugging Face's order.
  const std::byte* stored_row(size_t place) const { return data + place * row_bytes(); }
  size_t output_of(size_t place) const;
};

/// Values [begin, end) of a stored row as fp32. `begin` is a multiple of 256; `end` is a multiple
/// of 256 or the row's length.
void widen(DType dtype, const std::byte* row, size_t begin, size_t end, float* out);

/// One whole row (or a stored vector) as fp32.
std::vector<float> widen_row(const StoredMatrix& matrix, size_t row);

/// Memory that begins with a cache line, so that no vector lies across two; what is large lies in huge
/// pages where the system has them, whose addresses a processor translates faster.
void* allocate_lines(size_t bytes);
void free_lines(void* memory, size_t bytes);

/// Memory for numbers that are written before they are read: resize() leaves what is new as it is.
template <class T>
struct LineAllocator {
  using value_type = T;
  LineAllocator() = default;
  template <class Other>
  LineAllocator(const LineAllocator<Other>&) {}
  T* allocate(size_t n) { return static_cast<T*>(allocate_lines(n * sizeof(T))); }
  void deallocate(T* p, size_t n) { free_lines(p, n * sizeof(T)); }
  void construct(T* p) { ::new (static_cast<void*>(p)) T; }
  void construct(T* p, const T& value) { ::new (static_cast<void*>(p)) T(value); }
  bool operator==(const LineAllocator&) const = default;
};
template <class T>
using Lines = std::vector<T, LineAllocator<T>>;

/// Row-major activations: (rows = tokens, cols = features).
template <class T>
struct Matrix {
  size_t rows = 0;
  size_t cols = 0;
  Lines<T> values;

  Matrix() = default;
  Matrix(size_t rows, size_t cols, const T& value = T(0)) : rows(rows), cols(cols), values(rows * cols, value) {}
  T* row(size_t r) { return values.data() + begin_of(r); }
  const T* row(size_t r) const { return values.data() + begin_of(r); }
  T* operator[](size_t r) { return row(r); }
  const T* operator[](size_t r) const { return row(r); }
  std::span<T> span() { return values; }
  /// Puts the rows of another matrix of the same width behind these.
  Matrix& append(const Matrix& more) {
    values.insert(values.end(), more.values.begin(), more.values.end());
    rows += more.rows;
    cols = more.cols;
    return *this;
  }

 private:
  size_t begin_of([[maybe_unused]] size_t r) const {
    SINKREF_CHECK(r, <, rows);
    SINKREF_CHECK(values.size(), >=, rows * cols);
    return r * cols;
  }
};

/// Index of the first of the largest values; NaN never wins.
template <class T>
size_t argmax(std::span<const T> values);

}  // namespace sinkref
