#include "sinkref/tensor.h"

namespace sinkref {

const DTypeInfo& dtype_info(DType dtype) {
  static const DTypeInfo table[] = {
      {"F32", 1, 4},      {"F16", 1, 2},      {"BF16", 1, 2},     {"Q8_0", 32, 34},
      {"Q4_0", 32, 18},   {"Q4_1", 32, 20},   {"Q5_0", 32, 22},   {"Q5_1", 32, 24},
      {"Q4_K", 256, 144}, {"Q5_K", 256, 176}, {"Q6_K", 256, 210},
  };
  return table[static_cast<size_t>(dtype)];
}

size_t interleaved_row(size_t r, size_t head_dim) {
  const size_t half = head_dim / 2;
  const size_t in_head = r % head_dim;
  return r - in_head + (in_head < half ? 2 * in_head : 2 * (in_head - half) + 1);
}

const std::byte* StoredMatrix::row(size_t r) const {
  if (interleaved_head_dim != 0) r = interleaved_row(r, interleaved_head_dim);
  return stored_row(r);
}

size_t StoredMatrix::output_of(size_t place) const {
  if (interleaved_head_dim == 0) return place;
  const size_t in_head = place % interleaved_head_dim;
  return place - in_head + in_head / 2 + in_head % 2 * (interleaved_head_dim / 2);
}

std::vector<float> widen_row(const StoredMatrix& matrix, size_t row) {
  std::vector<float> out(matrix.cols);
  widen(matrix.dtype, matrix.row(row), 0, matrix.cols, out.data());
  return out;
}

}  // namespace sinkref
