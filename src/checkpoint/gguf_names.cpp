#include "checkpoint/gguf_names.h"

#include <regex>

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

bool split_layer_name(const std::string& name, LayerName& out) {
  static const std::regex pattern(R"(blk\.(\d+)\.(\w+)\.(weight|bias))");
  std::smatch match;
  if (!std::regex_match(name, match, pattern)) return false;
  out = {match[1], match[2], match[3]};
  return true;
}

}  // namespace

std::string hugging_face_name(const std::string& gguf_name) {
  for (const Name& name : model_names)
    if (gguf_name == name.gguf) return name.hugging_face;
  LayerName split;
  if (split_layer_name(gguf_name, split))
    for (const Name& name : layer_names)
      if (split.part == name.gguf)
        return "model.layers." + split.layer + "." + name.hugging_face + "." + split.kind;
  return gguf_name;
}

bool is_rotated(const std::string& gguf_name) {
  LayerName split;
  return split_layer_name(gguf_name, split) && (split.part == "attn_q" || split.part == "attn_k");
}

}  // namespace sinkref
