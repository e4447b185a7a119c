// The configuration of a GGUF file of architecture "llama": its "llama.*" metadata, and the
// presence of tensors (biases, output matrix, RoPE divisors).
#include <algorithm>
#include <cctype>
#include <charconv>
#include <map>
#include <set>

#include "model/config_readers.h"
#include "checkpoint/fields.h"
#include "checkpoint/metadata.h"
#include "sinkref/error.h"

namespace sinkref {

namespace {

// clang-format off
// "llama." + these are read below, or do not change the logits.
const std::set<std::string> known_keys = {
    "block_count", "context_length", "embedding_length", "feed_forward_length", "vocab_size",
    "attention.head_count", "attention.head_count_kv", "attention.key_length",
    "attention.value_length", "attention.layer_norm_rms_epsilon", "attention.sliding_window",
    "attention.causal", "rope.dimension_count", "rope.freq_base", "rope.scaling.type",
    "rope.scaling.factor", "rope.scale_linear", "rope.scaling.original_context_length",
    "rope.scaling.finetuned", "tensor_data_layout", "expert_used_count"};

// "llama." + these are other families' settings, at the value that leaves plain LLaMA as it is.
const std::map<std::string, nlohmann::json> neutral_values = {
    {"expert_count", 0}, {"expert_shared_count", 0}, {"use_parallel_residual", false},
    {"attention.scale", 0}, {"logit_scale", 0}, {"residual_scale", 0}, {"embedding_scale", 0},
    {"attn_logit_softcapping", 0}, {"final_logit_softcapping", 0}, {"interleave_moe_layer_step", 0}};
// clang-format on

// GGUF stores fp32 where config.json has a decimal: 9.99999975e-06 for 1e-05. The shortest
// decimal that gives this fp32 is what was meant, so both files of a model give the same double.
double as_decimal(double stored) {
  char text[32];
  const auto end = std::to_chars(text, text + sizeof text, static_cast<float>(stored)).ptr;
  double value = 0;
  std::from_chars(text, end, value);
  return value;
}

class Reader {
 public:
  explicit Reader(const Checkpoint& checkpoint) : checkpoint_(checkpoint) {}
  ModelConfig read() const;

 private:
  Field metadata(const std::string& key) const;
  Field field(const std::string& name) const { return metadata("llama." + name); }
  void check_keys() const;
  size_t vocab_size() const;
  size_t head_dim(const ModelConfig& config) const;
  bool has_bias(std::initializer_list<const char*> parts) const;
  RopeConfig rope(const ModelConfig& config) const;
  void read_special_tokens(ModelConfig& config) const;
  void note_what_is_missing(ModelConfig& config) const;

  const Checkpoint& checkpoint_;
};

Field Reader::metadata(const std::string& key) const {
  const auto found = checkpoint_.metadata().gguf.find(key);
  return {checkpoint_.path(), key,
          found == checkpoint_.metadata().gguf.end() ? nullptr : &found->second};
}

// As in config.json: a setting of the model is ignored only where it is known to change nothing.
void Reader::check_keys() const {
  const std::string prefix = "llama.";
  for (const auto& [key, value] : checkpoint_.metadata().gguf) {
    if (!key.starts_with(prefix) || known_keys.count(key.substr(prefix.size()))) continue;
    const auto neutral = neutral_values.find(key.substr(prefix.size()));
    if (neutral == neutral_values.end() || !(value == neutral->second))
      metadata(key).fail("it to be absent or without effect: sinkref does not know this setting",
                         "convert the model again from its own page's files, or choose another");
  }
  if (field("attention.causal").is_set() && !field("attention.causal").flag())
    field("attention.causal").fail("true");
}

ModelConfig Reader::read() const {
  check_keys();
  ModelConfig config;
  config.model_type = "llama";
  config.vocab_size = vocab_size();
  config.hidden_size = field("embedding_length").size();
  config.intermediate_size = field("feed_forward_length").size();
  config.layers = field("block_count").size();
  config.heads = field("attention.head_count").size();
  config.kv_heads = field("attention.head_count_kv").size_or(config.heads);
  config.head_dim = head_dim(config);
  config.rms_norm_eps = as_decimal(field("attention.layer_norm_rms_epsilon").positive());
  config.max_positions = field("context_length").size();
  if (!field("attention.sliding_window").is_off())
    config.sliding_window = field("attention.sliding_window").size();
  config.rope = rope(config);
  config.attention_bias =
      has_bias({"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"});
  config.mlp_bias = has_bias({"mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"});
  config.tied_output = !checkpoint_.has("lm_head.weight");
  read_special_tokens(config);
  note_what_is_missing(config);
  return config;
}

// Settings that GGUF files of well-known models lack, so that they run without them.
void Reader::note_what_is_missing(ModelConfig& config) const {
  const auto found = checkpoint_.metadata().gguf.find("general.name");
  const bool has_name = found != checkpoint_.metadata().gguf.end() && found->second.is_string();
  std::string name = has_name ? found->second.get<std::string>() : "";
  std::transform(name.begin(), name.end(), name.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  // Mistral-7B-v0.1's sizes: of its successors, those without a window have another vocabulary or
  // base frequency.
  const bool is_first_mistral = config.max_positions == 32768 && config.rope.theta == 10000 &&
                                config.kv_heads == 8 && config.heads == 32;
  if (!config.sliding_window && (is_first_mistral || name.find("mistral-7b-v0.1") != name.npos))
    config.notes.push_back(
        "The GGUF file names no sliding window; Mistral-7B-v0.1 has one of 4096, so beyond 4096 "
        "tokens this is not that model.");
  const bool is_llama3 = config.rope.theta == 500000 && config.max_positions > 8192;
  if (is_llama3 && config.rope.scaling == RopeScaling::None && config.rope.freq_divisors.empty())
    config.notes.push_back(
        "The GGUF file has no RoPE scaling (rope_freqs.weight), which Llama 3.1 and later have: "
        "if it is one of them, this is not that model; convert it again.");
}

size_t Reader::vocab_size() const {
  const auto embedding = checkpoint_.tensors().find("model.embed_tokens.weight");
  const auto tokens = checkpoint_.metadata().gguf.find("tokenizer.ggml.tokens");
  const bool has_embedding = embedding != checkpoint_.tensors().end();
  const bool has_tokens = tokens != checkpoint_.metadata().gguf.end();
  if (has_tokens && (!tokens->second.is_array() || tokens->second.empty()))
    metadata("tokenizer.ggml.tokens").fail("an array of strings");
  if (!has_embedding) return has_tokens ? tokens->second.size() : field("vocab_size").size();
  const uint64_t rows = embedding->second.shape[0];
  if (rows > INT32_MAX || (has_tokens && rows != tokens->second.size()))
    metadata("tokenizer.ggml.tokens")
        .fail("one for each of the " + std::to_string(rows) + " rows of token_embd.weight");
  return rows;
}

size_t Reader::head_dim(const ModelConfig& config) const {
  const Field key_length = field("attention.key_length");
  if (!key_length.is_set() && config.hidden_size % config.heads != 0)
    field("embedding_length")
        .fail("a multiple of llama.attention.head_count = " + std::to_string(config.heads) +
              " where llama.attention.key_length is not given");
  const size_t size = key_length.size_or(config.hidden_size / config.heads);
  for (const char* name : {"attention.value_length", "rope.dimension_count"})
    if (field(name).size_or(size) != size)
      field(name).fail("the head dimension " + std::to_string(size));
  return size;
}

bool Reader::has_bias(std::initializer_list<const char*> parts) const {
  for (const char* part : parts)
    if (checkpoint_.has("model.layers.0." + std::string(part) + ".bias")) return true;
  return false;
}

RopeConfig Reader::rope(const ModelConfig& config) const {
  RopeConfig rope;
  if (field("rope.freq_base").is_set()) rope.theta = as_decimal(field("rope.freq_base").positive());
  const Field type = field("rope.scaling.type");
  const std::string name = type.is_set() ? type.text() : "linear";
  if (name != "none" && name != "linear") type.fail("\"none\" or \"linear\"");
  // 0 is how llama.cpp writes "no scaling"; scale_linear is an older name of the factor.
  for (const Field& factor : {field("rope.scale_linear"), field("rope.scaling.factor")})
    if (name == "linear" && !factor.is_off()) rope.factor = as_decimal(factor.positive());
  if (rope.factor != 1.0) rope.scaling = RopeScaling::Linear;
  if (!checkpoint_.has("rope_freqs.weight")) return rope;
  rope.freq_divisors = checkpoint_.vector("rope_freqs.weight", config.head_dim / 2);
  for (const float divisor : rope.freq_divisors)
    if (!(divisor > 0 && divisor <= 3.4028235e38f))
      refuse(checkpoint_.path().string(), "tensor \"rope_freqs.weight\" holds " +
                                              std::to_string(divisor) +
                                              ", expected finite numbers > 0");
  if (rope.scaling != RopeScaling::None)
    field("rope.scaling.factor").fail("1 where the file has rope_freqs.weight");
  return rope;
}

void Reader::read_special_tokens(ModelConfig& config) const {
  const Field bos = metadata("tokenizer.ggml.bos_token_id");
  const std::vector<int> bos_ids = bos.ids(config.vocab_size, config.notes);
  if (bos_ids.size() > 1) bos.fail("one token id");
  if (!bos_ids.empty()) config.bos_id = bos_ids[0];
  // A chat model ends its turn with eot and the text with eos; generation stops at either.
  for (const char* key : {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"})
    for (const int id : metadata(key).ids(config.vocab_size, config.notes))
      if (config.eos_ids.empty() || config.eos_ids[0] != id) config.eos_ids.push_back(id);
}

}  // namespace

ModelConfig read_gguf_config(const Checkpoint& checkpoint) {
  return Reader(checkpoint).read();
}

}  // namespace sinkref
