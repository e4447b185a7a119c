#include "sinkref/config.h"

#include <set>

#include "model/config_readers.h"
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

std::set<std::string> layer_tensor_names(const ModelConfig& config) {
  std::set<std::string> names = {"input_layernorm.weight", "post_attention_layernorm.weight"};
  for (const char* part : {"q_proj", "k_proj", "v_proj", "o_proj"}) {
    names.insert("self_attn." + std::string(part) + ".weight");
    if (config.attention_bias) names.insert("self_attn." + std::string(part) + ".bias");
  }
  for (const char* part : {"gate_proj", "up_proj", "down_proj"}) {
    names.insert("mlp." + std::string(part) + ".weight");
    if (config.mlp_bias) names.insert("mlp." + std::string(part) + ".bias");
  }
  return names;
}

// "model.layers.3.mlp.up_proj.weight" -> "mlp.up_proj.weight" if layer 3 exists, else "".
std::string within_layer(const std::string& name, size_t layers) {
  const std::string prefix = "model.layers.";
  if (!name.starts_with(prefix)) return "";
  const size_t dot = name.find('.', prefix.size());
  if (dot == std::string::npos) return "";
  const std::string number = name.substr(prefix.size(), dot - prefix.size());
  const bool is_number = !number.empty() && number.size() < 10 &&
                         number.find_first_not_of("0123456789") == std::string::npos;
  return is_number && std::stoul(number) < layers ? name.substr(dot + 1) : "";
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
  const std::set<std::string> in_layer = layer_tensor_names(config);
  for (const auto& [name, tensor] : checkpoint.tensors()) {
    const bool derived = name.ends_with("rotary_emb.inv_freq") || name == "rope_freqs.weight" ||
                         name.ends_with(".attn_rot_embd.weight");
    const bool known = name == "model.embed_tokens.weight" || name == "model.norm.weight" ||
                       name == "lm_head.weight" ||
                       in_layer.count(within_layer(name, config.layers)) != 0;
    if (!known && !derived)
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
