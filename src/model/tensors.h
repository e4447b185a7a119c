#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "sinkref/hooks.h"
#include "sinkref/model.h"

namespace sinkref {

/// A weight of the model under both of its names: "self_attn.q_proj" of "model.layers.L." is "attn_q" of
/// "blk.L.". ".weight" and ".bias" follow.
struct TensorInfo {
  const char* hugging_face;
  const char* gguf;
  bool in_block;
  /// {rows, cols} of a matrix, {n} of a norm's weight.
  std::vector<uint64_t> (*shape)(const ModelConfig& config);
  bool (*is_there)(const ModelConfig& config);
  bool (*has_bias)(const ModelConfig& config);
  /// Of a block: where it goes; a norm's weight has no matrix.
  StoredMatrix LayerWeights::*matrix;
  std::vector<float> LayerWeights::*vector;  ///< the norm's weight, or the matrix's bias
  bool rotated;  ///< GGUF interleaves the rows of each head's two halves
  std::optional<HookPoint> output;  ///< of a matrix that is multiplied with: what it gives
};

/// Every tensor of a model, in the order in which it is used.
std::span<const TensorInfo> tensor_table();

/// All that a configuration calls for, and of its biases those that the checkpoint has.
std::vector<Model::Needed> needed_tensors(const ModelConfig& config, const Checkpoint& checkpoint);

/// Whether a matrix has a bias here. Each kind of bias is there in all blocks or in none; one that is not
/// is 0.
bool has_bias(const TensorInfo& tensor, const ModelConfig& config, const Checkpoint& checkpoint);

/// "model.layers.3.self_attn.q_proj.weight"
std::string tensor_name(const TensorInfo& tensor, size_t layer, const char* part = "weight");

/// The matrix whose product a hook of kind `product` shows.
const StoredMatrix& matrix_of(const Model& model, Hook hook);

/// Whether a model of this configuration has a tensor of this name.
bool is_tensor_of(const std::string& name, const ModelConfig& config);

}  // namespace sinkref
