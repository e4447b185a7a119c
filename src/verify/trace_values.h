#pragma once

#include <initializer_list>
#include <string>
#include <vector>

#include "sinkref/trace.h"

namespace sinkref {

/// Of a shape: whatever the file has, from 1 on.
inline constexpr uint64_t any_extent = UINT64_MAX;

/// The values of a tensor of somebody else's file, which must have this shape and one of these dtypes
/// ("F64", "I64", …). Throws InputError that names file, tensor, what was expected and what was found.
std::vector<double> checked_values(const TraceFile& file, const std::string& name,
                                   const std::vector<uint64_t>& shape,
                                   std::initializer_list<const char*> dtypes);

/// Ids of an I64 tensor of this shape, each in the vocabulary.
std::vector<int> checked_ids(const TraceFile& file, const std::string& name,
                             const std::vector<uint64_t>& shape, size_t vocab_size);

/// "F32", "I64", "Q4_K": as the file has it.
std::string dtype_text(const StoredTensor& tensor);

}  // namespace sinkref
