#pragma once

#include <map>
#include <string>
#include <vector>

namespace sinkref {

/// One tensor of a safetensors file that is to be written.
struct TensorPlan {
  std::string name;
  const char* dtype;
  std::vector<size_t> shape;
  size_t bytes;
};

/// Everything before the data, whose tensors follow one another in the order given: the length of
/// the JSON in eight bytes and the JSON itself, padded so that the data is aligned to 8 bytes.
std::string safetensors_header(const std::vector<TensorPlan>& tensors,
                               const std::map<std::string, std::string>& metadata);

}  // namespace sinkref
