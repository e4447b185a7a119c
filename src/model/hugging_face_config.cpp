// config.json as transformers' configuration_llama.py, configuration_mistral.py and
// modeling_rope_utils.py read it, from version 4 and 5 alike. Where a key is absent, the class's
// default holds; where two places of the file disagree, that is an error.
#include <algorithm>
#include <set>

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
    "rope_parameters", "partial_rotary_factor", "bos_token_id", "eos_token_id"};

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
    "suppress_tokens", "begin_suppress_tokens"};

const std::set<std::string> rope_keys = {
    "rope_type", "type", "rope_theta", "factor", "low_freq_factor", "high_freq_factor",
    "original_max_position_embeddings", "partial_rotary_factor"};
// clang-format on

constexpr const char* other_model = "sinkref runs no model of this kind; choose another";

class Reader {
 public:
  explicit Reader(const Checkpoint& checkpoint)
      : checkpoint_(checkpoint), root_(checkpoint.config_file(), "", &checkpoint.metadata().config) {}

  ModelConfig read() const;

 private:
  Field field(const std::string& name) const;
  void check_keys() const;
  size_t head_dim(const ModelConfig& config) const;
  std::optional<size_t> sliding_window(bool mistral) const;
  void check_layer_types(const ModelConfig& config) const;
  Field rope_object() const;
  double rope_theta(const Field& object) const;
  std::string rope_type(const Field& object) const;
  RopeConfig rope() const;
  void read_scaling(const Field& object, RopeConfig& rope) const;
  void read_special_tokens(ModelConfig& config) const;

  const Checkpoint& checkpoint_;
  Field root_;
};

Field Reader::field(const std::string& name) const {
  const auto found = checkpoint_.metadata().config.find(name);
  return {checkpoint_.config_file(), name,
          found == checkpoint_.metadata().config.end() ? nullptr : &*found};
}

// A key this program has never heard of may change the mathematics, as many have. It is ignored
// only if it is switched off; else the user decides, by removing it from config.json.
void Reader::check_keys() const {
  for (const std::string& key : root_.names()) {
    if (used_keys.count(key) || harmless_keys.count(key) || key.starts_with("unsloth_")) continue;
    if (!field(key).is_off())
      field(key).fail("it to be absent, null, false or 0: sinkref does not know this setting",
                      "if it does not change the model's mathematics, remove it");
  }
}

ModelConfig Reader::read() const {
  ModelConfig config;
  config.model_type = field("model_type").text();
  if (config.model_type != "llama" && config.model_type != "mistral")
    field("model_type").fail("\"llama\" or \"mistral\"", other_model);
  const bool mistral = config.model_type == "mistral";
  check_keys();
  config.vocab_size = field("vocab_size").size();
  config.hidden_size = field("hidden_size").size();
  config.intermediate_size = field("intermediate_size").size();
  config.layers = field("num_hidden_layers").size();
  config.heads = field("num_attention_heads").size();
  const Field kv_heads = field("num_key_value_heads");
  config.kv_heads = kv_heads.size_or(mistral && kv_heads.is_absent() ? 8 : config.heads);
  config.head_dim = head_dim(config);
  config.rms_norm_eps = field("rms_norm_eps").positive_or(1e-6);
  config.max_positions = field("max_position_embeddings").size();
  config.sliding_window = sliding_window(mistral);
  check_layer_types(config);
  config.rope = rope();
  config.attention_bias = field("attention_bias").flag_or(false);
  config.mlp_bias = field("mlp_bias").flag_or(false);
  for (const char* bias : {"attention_bias", "mlp_bias"})
    if (mistral && !field(bias).is_off()) field(bias).fail("false, as Mistral has no biases");
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

RopeConfig Reader::rope() const {
  const Field object = rope_object();
  RopeConfig rope;
  rope.theta = rope_theta(object);
  std::vector<Field> partial = {field("partial_rotary_factor")};
  if (!object.is_off()) {
    read_scaling(object, rope);
    partial.push_back(object.member("partial_rotary_factor"));
  }
  for (const Field& factor : partial)
    if (factor.positive_or(1.0) != 1.0) factor.fail("1: all of a head is rotated");
  return rope;
}

void Reader::read_scaling(const Field& object, RopeConfig& rope) const {
  for (const std::string& name : object.names())
    if (!rope_keys.count(name) && !object.member(name).is_off())
      object.member(name).fail("it to be absent: sinkref does not know this setting");
  const std::string type = rope_type(object);
  std::set<std::string> parameters;
  if (type == "linear") {
    rope.scaling = RopeScaling::Linear;
    parameters = {"factor"};
  } else if (type == "llama3") {
    rope.scaling = RopeScaling::Llama3;
    parameters = {"factor", "low_freq_factor", "high_freq_factor",
                  "original_max_position_embeddings"};
  } else if (type != "default") {
    object.member(object.member("rope_type").is_set() ? "rope_type" : "type")
        .fail("\"default\", \"linear\" or \"llama3\"", other_model);
  }
  for (const char* name :
       {"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"})
    if (!parameters.count(name) && object.member(name).is_set())
      object.member(name).fail("it to be absent where the rope type is \"" + type + "\"");
  if (type == "default") return;
  rope.factor = object.member("factor").positive();
  if (rope.factor < 1) object.member("factor").fail("at least 1");
  if (type == "linear") return;
  rope.low_freq_factor = object.member("low_freq_factor").positive();
  rope.high_freq_factor = object.member("high_freq_factor").positive();
  if (rope.high_freq_factor <= rope.low_freq_factor)
    object.member("high_freq_factor").fail("more than low_freq_factor");
  rope.original_max_positions =
      static_cast<double>(object.member("original_max_position_embeddings").size());
}

void Reader::read_special_tokens(ModelConfig& config) const {
  // The classes' defaults are ids 1 and 2, which a tiny vocabulary may not have.
  const Field bos = field("bos_token_id");
  const std::vector<int> bos_ids = bos.ids(config.vocab_size);
  if (bos_ids.size() > 1) bos.fail("one token id or null");
  if (!bos_ids.empty()) config.bos_id = bos_ids[0];
  if (bos.is_absent() && config.vocab_size > 1) config.bos_id = 1;
  const Field eos = field("eos_token_id");
  config.eos_ids = eos.ids(config.vocab_size);
  if (eos.is_absent() && config.vocab_size > 2) config.eos_ids = {2};
  // generate() takes its settings from this file where it exists (Llama 3 names its end of turn
  // only there).
  const std::filesystem::path file = checkpoint_.path() / "generation_config.json";
  if (!is_present(file)) return;
  const nlohmann::json generation = read_json_file(file, 1u << 20);
  const Field generation_eos = Field(file, "", &generation).member("eos_token_id");
  if (generation_eos.is_set()) config.eos_ids = generation_eos.ids(config.vocab_size);
}

}  // namespace

ModelConfig read_hugging_face_config(const Checkpoint& checkpoint) {
  return Reader(checkpoint).read();
}

}  // namespace sinkref
