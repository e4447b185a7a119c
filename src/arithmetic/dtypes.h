#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "sinkref/tensor.h"

namespace sinkref {

/// One row of the table of dtypes (dequantize.cpp): all that the file formats, the kernels and the
/// messages know of it.
struct DTypeRow {
  std::optional<DType> dtype;  ///< nothing: files may hold it, but no weight can be of it
  DTypeInfo info;
  int ggml;             ///< its number in GGUF, or no_ggml
  bool in_safetensors;  ///< whether that format has it, by the same name
  /// Elements [begin, end) of a stored row as fp32; null where there is no DType.
  void (*widen)(const DTypeInfo& info, const std::byte* row, size_t begin, size_t end, float* out);
};
inline constexpr int no_ggml = -1;

std::span<const DTypeRow> dtype_table();
/// The row of this name or number, or null.
const DTypeRow* dtype_named(std::string_view name);
const DTypeRow* dtype_numbered(uint32_t ggml);
/// "F32, F16, …": those that weights can be of.
std::string dtype_names();

}  // namespace sinkref
