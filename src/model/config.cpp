#include "sinkref/config.h"

#include "model/config_readers.h"
#include "model/tensors.h"
#include "checkpoint/fields.h"
#include "sinkref/error.h"

namespace sinkref {

namespace {

[[noreturn]] void fail(const Checkpoint& checkpoint, const std::string& problem) {
  refuse(checkpoint.config_file().string(), problem, Field::other_file);
}

void check_heads(const Checkpoint& checkpoint, const ModelConfig& config) {
  if (config.heads % config.kv_heads != 0)
    fail(checkpoint, std::to_string(config.heads) + " attention heads cannot share " +
                         std::to_string(config.kv_heads) +
                         " key/value heads; expected num_attention_heads to be a multiple of "
                         "num_key_value_heads");
  if (config.head_dim % 2 != 0)
    fail(checkpoint, "head_dim is " + std::to_string(config.head_dim) +
                         ", expected an even number (RoPE rotates pairs)");
  if (config.heads * config.head_dim > INT32_MAX)
    fail(checkpoint, "num_attention_heads times head_dim is " +
                         std::to_string(config.heads * config.head_dim) +
                         ", expected at most 2147483647");
}

// Before anything is made for each layer: a configuration may claim 2^31 of them.
void check_layers(const Checkpoint& checkpoint, const ModelConfig& config) {
  if (checkpoint.tensors().empty() || config.layers <= checkpoint.tensors().size()) return;
  fail(checkpoint, "claims " + std::to_string(config.layers) +
                       " layers, expected no more than the " +
                       std::to_string(checkpoint.tensors().size()) + " tensors that there are");
}

// A tensor without a place in the model means that the file holds another model than the
// configuration says (more layers, biases, adapters, quantisation scales): not to be ignored.
void check_tensor_names(const Checkpoint& checkpoint, const ModelConfig& config) {
  for (const auto& [name, tensor] : checkpoint.tensors()) {
    const bool derived = name.ends_with("rotary_emb.inv_freq") || name == "rope_freqs.weight" ||
                         name.ends_with(".attn_rot_embd.weight");
    if (!is_tensor_of(name, config) && !derived)
      refuse(tensor.file.string(),
             "holds tensor " + quoted(tensor.stored_name) + ", expected only those of a " +
                 config.model_type + " model of " + std::to_string(config.layers) +
                 " layers with attention_bias " + (config.attention_bias ? "true" : "false") +
                 " and mlp_bias " + (config.mlp_bias ? "true" : "false"),
             "take configuration and weights from one model");
  }
}

}  // namespace

ModelConfig read_config(const Checkpoint& checkpoint) {
  ModelConfig config =
      checkpoint.is_gguf() ? read_gguf_config(checkpoint) : read_hugging_face_config(checkpoint);
  check_heads(checkpoint, config);
  check_layers(checkpoint, config);
  check_tensor_names(checkpoint, config);
  return config;
}

}  // namespace sinkref
