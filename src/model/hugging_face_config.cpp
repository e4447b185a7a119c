// config.json as transformers' configuration_llama.py, configuration_mistral.py and
// modeling_rope_utils.py read it, from version 4 and 5 alike. Where a key is absent, the class's
// default holds; where two places of the file disagree, that is an error. A key that changes nothing
// is passed over with a note, one that might is refused by name.
#include <algorithm>
#include <map>
#include <set>
#include <string_view>

#include "model/config_readers.h"
#include "checkpoint/fields.h"
#include "base/json_file.h"
#include "checkpoint/metadata.h"
#include "checkpoint/readers.h"
#include "sinkref/error.h"

namespace sinkref {

namespace {

// clang-format off
// Keys that the configuration below is made of.
const std::set<std::string> used_keys = {
    "model_type", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
    "num_attention_heads", "num_key_value_heads", "head_dim", "max_position_embeddings",
    "rms_norm_eps", "hidden_act", "attention_bias", "mlp_bias", "tie_word_embeddings",
    "sliding_window", "use_sliding_window", "layer_types", "rope_theta", "rope_scaling",
    "rope_parameters", "partial_rotary_factor", "original_max_position_embeddings",
    "bos_token_id", "eos_token_id"};

// Keys that do not change the logits: training, storage, bookkeeping, and settings of sampling
// (which transformers itself drops from config.json).
const std::set<std::string> harmless_keys = {
    "architectures", "torch_dtype", "dtype", "use_cache", "attention_dropout", "hidden_dropout",
    "initializer_range", "transformers_version", "_name_or_path", "name_or_path", "pad_token_id",
    "unk_token_id", "sep_token_id", "decoder_start_token_id", "pretraining_tp", "return_dict",
    "use_return_dict", "output_attentions", "output_hidden_states", "is_decoder", "id2label",
    "label2id", "num_labels", "problem_type", "finetuning_task", "task_specific_params",
    "tokenizer_class", "prefix", "keys_to_ignore_at_inference", "_attn_implementation",
    "_attn_implementation_autoset", "attn_implementation", "_flash_attn_2_enabled",
    "gradient_checkpointing", "max_sequence_length", "model_max_length", "is_llama_config",
    "transformers.js_config", "license", "_commit_hash", "max_length", "max_new_tokens",
    "min_length", "do_sample", "early_stopping", "num_beams", "num_beam_groups",
    "diversity_penalty", "temperature", "top_k", "top_p", "typical_p", "repetition_penalty",
    "length_penalty", "no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "bad_words_ids",
    "num_return_sequences", "output_scores", "return_dict_in_generate", "forced_bos_token_id",
    "forced_eos_token_id", "remove_invalid_values", "exponential_decay_length_penalty",
    "suppress_tokens", "begin_suppress_tokens", "chunk_size_feed_forward", "torchscript",
    "use_bfloat16", "tf_legacy_loss", "tie_encoder_decoder", "tie_last_hidden_states"};

// Keys of other families at the value that leaves plain LLaMA as it is.
const std::map<std::string, nlohmann::json> neutral_values = {
    {"is_causal", true}, {"is_encoder_decoder", false}, {"add_cross_attention", false},
    {"alibi", false}, {"use_alibi", false}, {"use_bias", false}, {"bias", false},
    {"qkv_bias", false}, {"use_qkv_bias", false}, {"use_qk_norm", false}, {"qk_layernorm", false},
    {"use_parallel_residual", false}, {"parallel_attn", false}, {"scale_embedding", false},
    {"num_experts", 0}, {"num_local_experts", 0}, {"n_routed_experts", 0},
    {"n_shared_experts", 0}, {"attn_logit_softcapping", 0}, {"final_logit_softcapping", 0},
    {"logit_scale", 1}, {"logits_scaling", 1}, {"embedding_multiplier", 1},
    {"residual_multiplier", 1}, {"per_layer_config", nlohmann::json::object()}};

// Every key that some configuration class of transformers defines, sorted.
constexpr std::string_view keys_of_transformers[] = {
#include "model/config_keys.inc"
};
// clang-format on

constexpr const char* transformers_classes = "configuration class of transformers";

constexpr const char* other_model = "sinkref runs no model of this kind; choose another";

class Reader {
 public:
  explicit Reader(const Checkpoint& checkpoint)
      : checkpoint_(checkpoint), root_(checkpoint.config_file(), "", &checkpoint.metadata().config) {}

  ModelConfig read() const;

 private:
  Field field(const std::string& name) const;
  size_t size(const std::string& name, size_t by_default, ModelConfig& config) const;
  void check_keys(ModelConfig& config) const;
  void check_quantization() const;
  bool has_no_effect(const std::string& key) const;
  bool biases(const std::string& key, const std::vector<std::string>& parts,
              ModelConfig& config) const;
  size_t head_dim(const ModelConfig& config) const;
  std::optional<size_t> sliding_window(bool mistral) const;
  void check_layer_types(const ModelConfig& config) const;
  Field rope_object() const;
  double rope_theta(const Field& object) const;
  std::string rope_type(const Field& object) const;
  RopeConfig rope(ModelConfig& config) const;
  void read_scaling(const Field& object, RopeConfig& rope, ModelConfig& config) const;
  double original_max_positions(const Field& object, const ModelConfig& config) const;
  void read_special_tokens(ModelConfig& config) const;

  const Checkpoint& checkpoint_;
  Field root_;
};

Field Reader::field(const std::string& name) const {
  const auto found = checkpoint_.metadata().config.find(name);
  return {checkpoint_.config_file(), name,
          found == checkpoint_.metadata().config.end() ? nullptr : &*found};
}

// What a class of transformers knows to be the size where the file does not say.
size_t Reader::size(const std::string& name, size_t by_default, ModelConfig& config) const {
  if (!field(name).is_absent()) return field(name).size();
  config.notes.push_back(name + " is absent: transformers' default " + std::to_string(by_default) +
                         " is taken.");
  return by_default;
}

bool Reader::has_no_effect(const std::string& key) const {
  if (used_keys.contains(key) || harmless_keys.contains(key) || key.starts_with("unsloth_") ||
      key.find("dropout") != std::string::npos)
    return true;
  const nlohmann::json& value = checkpoint_.metadata().config.at(key);
  if (value.is_null()) return key != "is_causal";  // which transformers takes for false
  const auto neutral = neutral_values.find(key);
  return neutral != neutral_values.end() && value == neutral->second;
}

// A key of another family may change the mathematics whatever its value: "false" is not "off".
// One that no class defines cannot change what transformers computes.
void Reader::check_keys(ModelConfig& config) const {
  check_quantization();
  std::string unknown;
  size_t count = 0;
  for (const std::string& key : root_.names()) {
    if (has_no_effect(key)) continue;
    if (key == "auto_map" || key == "pruned_heads") {
      if (!field(key).is_off()) field(key).fail("a model that transformers' own code runs", other_model);
    } else if (std::binary_search(std::begin(keys_of_transformers),
                                  std::end(keys_of_transformers), key)) {
      field(key).fail("it to be absent or without effect: it belongs to another family of models",
                      other_model);
    } else if (++count <= 8) {
      unknown += (unknown.empty() ? "" : ", ") + quoted(key);
    }
  }
  if (count == 0) return;
  config.notes.push_back("config.json has keys that no " + std::string(transformers_classes) +
                         " defines and that change nothing: " + unknown +
                         (count > 8 ? " and " + std::to_string(count - 8) + " more." : "."));
}

void Reader::check_quantization() const {
  for (const char* key : {"quantization_config", "compression_config"}) {
    const Field quantization = field(key);
    if (quantization.is_off()) continue;
    const Field method =
        quantization.is_object() ? quantization.member("quant_method") : Field("", "", nullptr);
    refuse(checkpoint_.config_file().string(),
           "the weights are quantised" + (method.is_set() ? " by " + quoted(method.text()) : "") +
               " (" + key + "), expected F32, F16 or BF16 in safetensors",
           "take the model that was quantised, or a GGUF file of it");
  }
}

// transformers takes an absent bias for 0.
bool Reader::biases(const std::string& key, const std::vector<std::string>& parts,
                    ModelConfig& config) const {
  if (!field(key).flag_or(false)) return false;
  std::string absent;
  size_t count = 0;
  for (const std::string& part : parts)
    if (!checkpoint_.has("model.layers.0." + part + ".bias")) {
      absent += (count++ == 0 ? "" : ", ") + part;
    }
  if (count == parts.size() && !checkpoint_.tensors().empty())
    field(key).fail("false, as the file has no bias of " + absent);
  if (count > 0 && count < parts.size())
    config.notes.push_back("The file has no bias of " + absent + ", which " + key +
                           " covers: taken as 0, as in transformers.");
  return true;
}

ModelConfig Reader::read() const {
  ModelConfig config;
  config.model_type = field("model_type").text();
  if (config.model_type != "llama" && config.model_type != "mistral")
    field("model_type").fail("\"llama\" or \"mistral\"", other_model);
  const bool mistral = config.model_type == "mistral";
  check_keys(config);
  config.vocab_size = size("vocab_size", 32000, config);
  config.hidden_size = size("hidden_size", 4096, config);
  config.intermediate_size = size("intermediate_size", mistral ? 14336 : 11008, config);
  config.layers = size("num_hidden_layers", 32, config);
  config.heads = size("num_attention_heads", 32, config);
  const Field kv_heads = field("num_key_value_heads");
  config.kv_heads = kv_heads.size_or(mistral && kv_heads.is_absent() ? 8 : config.heads);
  config.head_dim = head_dim(config);
  config.rms_norm_eps = field("rms_norm_eps").positive_or(1e-6);
  config.max_positions = size("max_position_embeddings", mistral ? 4096 * 32 : 2048, config);
  config.sliding_window = sliding_window(mistral);
  check_layer_types(config);
  config.rope = rope(config);
  for (const char* bias : {"attention_bias", "mlp_bias"})
    if (mistral && !field(bias).is_off()) field(bias).fail("false, as Mistral has no biases");
  config.attention_bias = biases(
      "attention_bias",
      {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"}, config);
  config.mlp_bias = biases("mlp_bias", {"mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"}, config);
  // As in transformers 5, a checkpoint that brings its own output matrix is not tied.
  config.tied_output =
      field("tie_word_embeddings").flag_or(false) && !checkpoint_.has("lm_head.weight");
  const Field act = field("hidden_act");
  if (act.is_set() && act.text() != "silu" && act.text() != "swish")
    act.fail("\"silu\"", other_model);
  read_special_tokens(config);
  return config;
}

size_t Reader::head_dim(const ModelConfig& config) const {
  if (field("head_dim").is_set()) return field("head_dim").size();
  if (config.hidden_size % config.heads != 0)
    field("hidden_size")
        .fail("a multiple of num_attention_heads = " + std::to_string(config.heads) +
              " where head_dim is not given");
  return config.hidden_size / config.heads;
}

std::optional<size_t> Reader::sliding_window(bool mistral) const {
  const Field window = field("sliding_window");
  const Field use = field("use_sliding_window");
  std::optional<size_t> size;
  if (mistral && window.is_absent()) size = 4096;
  if (mistral && window.is_set()) size = window.size();
  if (use.is_set() && use.flag() != size.has_value())
    use.fail(size ? "true, as Mistral uses its sliding_window"
                  : "false: there is no window to use");
  return size;
}

void Reader::check_layer_types(const ModelConfig& config) const {
  const Field types = field("layer_types");
  if (!types.is_set()) return;
  const std::string expected = config.sliding_window ? "sliding_attention" : "full_attention";
  const std::vector<std::string> all = types.texts();
  if (all.size() != config.layers ||
      std::any_of(all.begin(), all.end(),
                  [&](const std::string& type) { return type != expected; }))
    types.fail(std::to_string(config.layers) + " times \"" + expected + "\"");
}

// transformers 4 writes rope_scaling, transformers 5 rope_parameters; absent if there is neither.
Field Reader::rope_object() const {
  const Field scaling = field("rope_scaling");
  const Field parameters = field("rope_parameters");
  if (scaling.is_off()) return parameters;
  if (!parameters.is_off() && !(scaling == parameters))
    scaling.fail("the same as rope_parameters, or only one of them");
  return scaling;
}

double Reader::rope_theta(const Field& object) const {
  const Field top = field("rope_theta");
  if (object.is_off() || !object.member("rope_theta").is_set()) return top.positive_or(10000.0);
  const double theta = object.member("rope_theta").positive();
  if (top.is_set() && top.positive() != theta)
    top.fail(object.key() + ".rope_theta = " + std::to_string(theta) + ", or only one of them");
  return theta;
}

std::string Reader::rope_type(const Field& object) const {
  const Field type = object.member("rope_type");
  const Field old_type = object.member("type");
  if (type.is_set() && old_type.is_set() && !(type == old_type))
    type.fail("the same as " + old_type.key() + ", or only one of them");
  if (type.is_set()) return type.text();
  return old_type.is_set() ? old_type.text() : "default";
}

RopeConfig Reader::rope(ModelConfig& config) const {
  const Field object = rope_object();
  RopeConfig rope;
  rope.theta = rope_theta(object);
  std::vector<Field> partial = {field("partial_rotary_factor")};
  if (!object.is_off()) {
    read_scaling(object, rope, config);
    partial.push_back(object.member("partial_rotary_factor"));
  }
  for (const Field& factor : partial)
    if (factor.positive_or(1.0) != 1.0) factor.fail("1: all of a head is rotated");
  return rope;
}

void Reader::read_scaling(const Field& object, RopeConfig& rope, ModelConfig& config) const {
  const std::string type = rope_type(object);
  std::set<std::string> used = {"rope_type", "type", "rope_theta", "partial_rotary_factor"};
  if (type == "linear") {
    rope.scaling = RopeScaling::Linear;
    used.insert("factor");
  } else if (type == "llama3") {
    rope.scaling = RopeScaling::Llama3;
    used.insert({"factor", "low_freq_factor", "high_freq_factor",
                 "original_max_position_embeddings"});
  } else if (type != "default") {
    object.member(object.member("rope_type").is_set() ? "rope_type" : "type")
        .fail("\"default\", \"linear\" or \"llama3\"", other_model);
  }
  for (const std::string& name : object.names()) {
    const Field member = object.member(name);
    if (used.contains(name) || !member.is_set()) continue;
    // Another rotation, or a factor that someone meant to have an effect.
    if (name.starts_with("mrope") || (name == "factor" && member.positive() != 1))
      member.fail("it to be absent where the rope type is \"" + type + "\"");
    config.notes.push_back(member.key() + " has no effect where the rope type is " + type + ".");
  }
  if (type == "default") return;
  rope.factor = object.member("factor").positive();
  if (rope.factor < 1) object.member("factor").fail("at least 1");
  if (type == "linear") return;
  rope.low_freq_factor = object.member("low_freq_factor").positive();
  rope.high_freq_factor = object.member("high_freq_factor").positive();
  if (rope.high_freq_factor <= rope.low_freq_factor)
    object.member("high_freq_factor").fail("more than low_freq_factor");
  rope.original_max_positions = original_max_positions(object, config);
}

double Reader::original_max_positions(const Field& object, const ModelConfig& config) const {
  const Field own = object.member("original_max_position_embeddings");
  const Field top = field("original_max_position_embeddings");
  const size_t size = own.is_absent() ? config.max_positions : own.size();
  if (top.is_set() && top.size() != size)
    top.fail(object.key() + "'s " + std::to_string(size) + ", or only one of them");
  return static_cast<double>(size);
}

void Reader::read_special_tokens(ModelConfig& config) const {
  // The classes' defaults are ids 1 and 2, which a tiny vocabulary may not have.
  const Field bos = field("bos_token_id");
  const std::vector<int> bos_ids = bos.ids(config.vocab_size, config.notes);
  if (bos_ids.size() > 1) bos.fail("one token id or null");
  if (!bos_ids.empty()) config.bos_id = bos_ids[0];
  if (bos.is_absent() && config.vocab_size > 1) config.bos_id = 1;
  const Field eos = field("eos_token_id");
  config.eos_ids = eos.ids(config.vocab_size, config.notes);
  if (eos.is_absent() && config.vocab_size > 2) config.eos_ids = {2};
  // generate() takes its settings from this file where it exists (Llama 3 names its end of turn
  // only there).
  const std::filesystem::path file = checkpoint_.path() / "generation_config.json";
  if (!is_present(file)) return;
  const nlohmann::json generation = read_json_file(file, 1u << 20);
  const Field generation_eos = Field(file, "", &generation).member("eos_token_id");
  if (generation_eos.is_set())
    config.eos_ids = generation_eos.ids(config.vocab_size, config.notes);
}

}  // namespace

ModelConfig read_hugging_face_config(const Checkpoint& checkpoint) {
  return Reader(checkpoint).read();
}

}  // namespace sinkref
