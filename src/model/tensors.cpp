#include "model/tensors.h"

#include <algorithm>
#include <stdexcept>

#include "checkpoint/gguf_names.h"

namespace sinkref {

namespace {

using Config = ModelConfig;
using Shape = std::vector<uint64_t>;
using Weights = LayerWeights;

bool always(const Config&) { return true; }
bool never(const Config&) { return false; }
bool untied(const Config& c) { return !c.tied_output; }
bool attention_bias(const Config& c) { return c.attention_bias; }
bool mlp_bias(const Config& c) { return c.mlp_bias; }

Shape model_width(const Config& c) { return {c.hidden_size}; }
Shape vocabulary(const Config& c) { return {c.vocab_size, c.hidden_size}; }
Shape query(const Config& c) { return {c.heads * c.head_dim, c.hidden_size}; }
Shape key(const Config& c) { return {c.kv_heads * c.head_dim, c.hidden_size}; }
Shape out(const Config& c) { return {c.hidden_size, c.heads * c.head_dim}; }
Shape up(const Config& c) { return {c.intermediate_size, c.hidden_size}; }
Shape down(const Config& c) { return {c.hidden_size, c.intermediate_size}; }

// clang-format off
constexpr TensorInfo tensors[] = {
    {"model.embed_tokens", "token_embd", false, vocabulary, always, never, nullptr, nullptr, false, {}},
    {"input_layernorm", "attn_norm", true, model_width, always, never, nullptr, &Weights::ln1, false, {}},
    {"self_attn.q_proj", "attn_q", true, query, always, attention_bias, &Weights::wq, &Weights::bq, true, HookPoint::Q},
    {"self_attn.k_proj", "attn_k", true, key, always, attention_bias, &Weights::wk, &Weights::bk, true, HookPoint::K},
    {"self_attn.v_proj", "attn_v", true, key, always, attention_bias, &Weights::wv, &Weights::bv, false, HookPoint::V},
    {"self_attn.o_proj", "attn_output", true, out, always, attention_bias, &Weights::wo, &Weights::bo, false, HookPoint::AttnOut},
    {"post_attention_layernorm", "ffn_norm", true, model_width, always, never, nullptr, &Weights::ln2, false, {}},
    {"mlp.gate_proj", "ffn_gate", true, up, always, mlp_bias, &Weights::w_gate, &Weights::b_gate, false, HookPoint::Pre},
    {"mlp.up_proj", "ffn_up", true, up, always, mlp_bias, &Weights::w_up, &Weights::b_up, false, HookPoint::PreLinear},
    {"mlp.down_proj", "ffn_down", true, down, always, mlp_bias, &Weights::w_down, &Weights::b_down, false, HookPoint::MlpOut},
    {"model.norm", "output_norm", false, model_width, always, never, nullptr, nullptr, false, {}},
    {"lm_head", "output", false, vocabulary, untied, never, nullptr, nullptr, false, HookPoint::Logits},
};
// clang-format on

}  // namespace

std::span<const TensorInfo> tensor_table() { return tensors; }

std::string tensor_name(const TensorInfo& tensor, size_t layer, const char* part) {
  const std::string block = tensor.in_block ? "model.layers." + std::to_string(layer) + "." : "";
  return block + tensor.hugging_face + "." + part;
}

bool has_bias(const TensorInfo& tensor, const ModelConfig& config, const Checkpoint& checkpoint) {
  return tensor.has_bias(config) && checkpoint.has(tensor_name(tensor, 0, "bias"));
}

std::vector<Model::Needed> needed_tensors(const ModelConfig& config, const Checkpoint& checkpoint) {
  std::vector<Model::Needed> all;
  const auto add = [&](const TensorInfo& tensor, size_t layer) {
    if (!tensor.is_there(config)) return;
    const Shape shape = tensor.shape(config);
    all.push_back({tensor_name(tensor, layer), shape, layer});
    if (has_bias(tensor, config, checkpoint)) all.push_back({tensor_name(tensor, layer, "bias"), {shape[0]}, layer});
  };
  const auto first = std::find_if(std::begin(tensors), std::end(tensors), [](const auto& t) { return t.in_block; });
  const auto last = std::find_if(first, std::end(tensors), [](const auto& t) { return !t.in_block; });
  for (auto t = std::begin(tensors); t != first; ++t) add(*t, 0);
  for (size_t layer = 0; layer < config.layers; ++layer)
    for (auto t = first; t != last; ++t) add(*t, layer);
  for (auto t = last; t != std::end(tensors); ++t) add(*t, config.layers);
  return all;
}

const StoredMatrix& matrix_of(const Model& model, Hook hook) {
  const auto tensor = std::find_if(std::begin(tensors), std::end(tensors),
                                   [&](const TensorInfo& t) { return t.output == hook.point; });
  if (tensor == std::end(tensors)) throw std::logic_error(hook_name(hook) + " is no matrix's product");
  return tensor->in_block ? model.layer(hook.layer).*tensor->matrix : model.lm_head();
}

namespace {

/// "3", "self_attn.q_proj", "weight" of a name in a block; all of another name is its stem and part.
struct SplitName {
  std::string layer, stem, part;
};

SplitName split(const std::string& name, const std::string& prefix) {
  SplitName result;
  size_t begin = 0;
  if (name.starts_with(prefix)) {
    const size_t dot = name.find('.', prefix.size());
    if (dot != std::string::npos) {
      result.layer = name.substr(prefix.size(), dot - prefix.size());
      begin = dot + 1;
    }
  }
  const size_t dot = name.rfind('.');
  if (dot == std::string::npos || dot < begin) return {};
  result.stem = name.substr(begin, dot - begin);
  result.part = name.substr(dot + 1);
  return result;
}

bool is_number_below(const std::string& text, size_t limit) {
  return !text.empty() && text.size() < 10 && text.find_first_not_of("0123456789") == std::string::npos &&
         std::stoul(text) < limit;
}

const TensorInfo* find_gguf(const std::string& name, SplitName& parts) {
  parts = split(name, "blk.");
  if (parts.part != "weight" && parts.part != "bias") return nullptr;
  for (const TensorInfo& tensor : tensors)
    if (tensor.in_block == !parts.layer.empty() && parts.stem == tensor.gguf) return &tensor;
  return nullptr;
}

}  // namespace

bool is_tensor_of(const std::string& name, const ModelConfig& config) {
  const SplitName parts = split(name, "model.layers.");
  if (!parts.layer.empty() && !is_number_below(parts.layer, config.layers)) return false;
  return std::any_of(std::begin(tensors), std::end(tensors), [&](const TensorInfo& tensor) {
    if (tensor.in_block != !parts.layer.empty() || parts.stem != tensor.hugging_face) return false;
    return parts.part == "weight" || (parts.part == "bias" && tensor.has_bias(config));
  });
}

std::string hugging_face_name(const std::string& gguf_name) {
  SplitName parts;
  const TensorInfo* tensor = find_gguf(gguf_name, parts);
  if (tensor == nullptr) return gguf_name;
  return (tensor->in_block ? "model.layers." + parts.layer + "." : "") + tensor->hugging_face + "." + parts.part;
}

bool is_rotated(const std::string& gguf_name) {
  SplitName parts;
  const TensorInfo* tensor = find_gguf(gguf_name, parts);
  return tensor != nullptr && tensor->rotated;
}

}  // namespace sinkref
