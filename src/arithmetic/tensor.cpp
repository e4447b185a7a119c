#include "sinkref/tensor.h"

#include "arithmetic/dtypes.h"

namespace sinkref {

const DTypeInfo& dtype_info(DType dtype) { return dtype_table()[static_cast<size_t>(dtype)].info; }

const DTypeRow* dtype_named(std::string_view name) {
  for (const DTypeRow& row : dtype_table())
    if (name == row.info.name) return &row;
  return nullptr;
}

const DTypeRow* dtype_numbered(uint32_t ggml) {
  for (const DTypeRow& row : dtype_table())
    if (row.ggml != no_ggml && ggml == static_cast<uint32_t>(row.ggml)) return &row;
  return nullptr;
}

std::string dtype_names() {
  std::string names;
  for (const DTypeRow& row : dtype_table())
    if (row.dtype) names += (names.empty() ? "" : ", ") + std::string(row.info.name);
  return names;
}

void widen(DType dtype, const std::byte* row, size_t begin, size_t end, float* out) {
  const DTypeRow& type = dtype_table()[static_cast<size_t>(dtype)];
  type.widen(type.info, row, begin, end, out);
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
