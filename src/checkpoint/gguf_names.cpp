#include "checkpoint/gguf_names.h"

#include <optional>

namespace sinkref {

namespace {

struct Name {
  const char* gguf;
  const char* hugging_face;
};

constexpr Name model_names[] = {
    {"token_embd.weight", "model.embed_tokens.weight"},
    {"output_norm.weight", "model.norm.weight"},
    {"output.weight", "lm_head.weight"},
};

constexpr Name layer_names[] = {
    {"attn_norm", "input_layernorm"},    {"attn_q", "self_attn.q_proj"},
    {"attn_k", "self_attn.k_proj"},      {"attn_v", "self_attn.v_proj"},
    {"attn_output", "self_attn.o_proj"}, {"ffn_norm", "post_attention_layernorm"},
    {"ffn_gate", "mlp.gate_proj"},       {"ffn_up", "mlp.up_proj"},
    {"ffn_down", "mlp.down_proj"},
};

struct LayerName {
  std::string layer, part, kind;  // "3", "attn_q", "weight"
};

std::optional<LayerName> split_layer_name(const std::string& name) {
  const std::string prefix = "blk.";
  const size_t after_layer = name.find('.', prefix.size());
  const size_t after_part = name.rfind('.');
  if (!name.starts_with(prefix) || after_layer >= after_part) return std::nullopt;
  LayerName split{name.substr(prefix.size(), after_layer - prefix.size()),
                  name.substr(after_layer + 1, after_part - after_layer - 1),
                  name.substr(after_part + 1)};
  if (split.kind != "weight" && split.kind != "bias") return std::nullopt;
  return split;
}

}  // namespace

std::string hugging_face_name(const std::string& gguf_name) {
  for (const Name& name : model_names)
    if (gguf_name == name.gguf) return name.hugging_face;
  if (const auto split = split_layer_name(gguf_name))
    for (const Name& name : layer_names)
      if (split->part == name.gguf)
        return "model.layers." + split->layer + "." + name.hugging_face + "." + split->kind;
  return gguf_name;
}

bool is_rotated(const std::string& gguf_name) {
  const auto split = split_layer_name(gguf_name);
  return split && (split->part == "attn_q" || split->part == "attn_k");
}

}  // namespace sinkref
