#include "sinkref/config.h"

#include <algorithm>
#include <cmath>

#include "checkpoint_builder.h"
#include "sinkref/model.h"

using namespace sinkref;
using nlohmann::json;

namespace {

ModelConfig read_folder(const json& config, const std::vector<BuiltTensor>& tensors = {}) {
  TempDir dir;
  dir.write("config.json", config.dump());
  if (!tensors.empty()) dir.write("model.safetensors", safetensors_file(tensors));
  return read_config(Checkpoint::open(dir.path()));
}

ModelConfig read_file(const GgufBuilder& gguf) {
  TempDir dir;
  return read_config(Checkpoint::open(dir.write("model.gguf", gguf.build())));
}

// tiny_config() with a merge patch (null removes a key).
json changed(const json& patch) {
  json config = tiny_config();
  config.merge_patch(patch);
  return config;
}

// merge_patch cannot set a key to null.
json with_null(const std::string& key) {
  json config = tiny_config();
  config[key] = nullptr;
  return config;
}

json mistral(const json& patch = json::object()) {
  json config = changed({{"model_type", "mistral"}});
  config.merge_patch(patch);
  return config;
}

void has_note(const ModelConfig& config, const std::string& part) {
  INFO(part);
  CHECK(std::any_of(config.notes.begin(), config.notes.end(), [&](const std::string& note) {
    return note.find(part) != note.npos;
  }));
}

void refuses(const json& config, const std::vector<std::string>& parts) {
  INFO(config.dump());
  std::vector<std::string> all = parts;
  all.push_back("config.json");
  input_error([&] { read_folder(config); }, all);
}

void refuses_gguf(const GgufBuilder& gguf, const std::vector<std::string>& parts) {
  std::vector<std::string> all = parts;
  all.push_back("model.gguf");
  input_error([&] { read_file(gguf); }, all);
}

}  // namespace

TEST_CASE("config: a minimal LLaMA folder has the class defaults of transformers") {
  const ModelConfig config = read_folder(tiny_config());
  CHECK(config.model_type == "llama");
  CHECK(config.vocab_size == 16);
  CHECK(config.hidden_size == 8);
  CHECK(config.intermediate_size == 12);
  CHECK(config.layers == 1);
  CHECK(config.heads == 2);
  CHECK(config.kv_heads == 1);
  CHECK(config.head_dim == 4);
  CHECK(config.rms_norm_eps == 1e-5);
  CHECK(config.max_positions == 64);
  CHECK(!config.sliding_window);
  CHECK(config.rope.theta == 10000.0);
  CHECK(config.rope.scaling == RopeScaling::None);
  CHECK(config.rope.factor == 1.0);
  CHECK(!config.attention_bias);
  CHECK(!config.mlp_bias);
  CHECK(!config.tied_output);
  CHECK(config.bos_id == 1);
  CHECK(config.eos_ids == std::vector<int>{2});
  CHECK(read_folder(changed({{"rms_norm_eps", nullptr}})).rms_norm_eps == 1e-6);
}

TEST_CASE("config: key/value heads default to all heads in LLaMA and to 8 in Mistral") {
  CHECK(read_folder(changed({{"num_key_value_heads", nullptr}})).kv_heads == 2);
  CHECK(read_folder(mistral({{"num_key_value_heads", nullptr},
                             {"num_attention_heads", 16},
                             {"hidden_size", 32}}))
            .kv_heads == 8);
  json null_heads = mistral();
  null_heads["num_key_value_heads"] = nullptr;
  CHECK(read_folder(null_heads).kv_heads == 2);
}

TEST_CASE("config: Mistral's window is 4096 if absent and none if null; LLaMA ignores it") {
  CHECK(read_folder(mistral()).sliding_window == 4096);
  CHECK(read_folder(mistral({{"sliding_window", 7}})).sliding_window == 7);
  json none = mistral();
  none["sliding_window"] = nullptr;
  CHECK(!read_folder(none).sliding_window);
  CHECK(!read_folder(changed({{"sliding_window", 7}})).sliding_window);
  refuses(mistral({{"sliding_window", 0}}), {"sliding_window is 0"});
  refuses(mistral({{"use_sliding_window", false}}), {"use_sliding_window is false"});
  refuses(changed({{"use_sliding_window", true}}), {"use_sliding_window is true"});
}

TEST_CASE("config: layer_types must say what the model type does") {
  CHECK(read_folder(changed({{"layer_types", {"full_attention"}}})).layers == 1);
  CHECK(read_folder(mistral({{"layer_types", {"sliding_attention"}}})).layers == 1);
  refuses(mistral({{"layer_types", {"full_attention"}}}), {"layer_types", "sliding_attention"});
  refuses(changed({{"layer_types", {"full_attention", "full_attention"}}}), {"layer_types"});
  refuses(changed({{"layer_types", {1}}}), {"layer_types"});
}

TEST_CASE("config: an explicit head_dim need not divide hidden_size") {
  CHECK(read_folder(changed({{"head_dim", 6}})).head_dim == 6);
  CHECK(read_folder(changed({{"hidden_size", 9}, {"head_dim", 6}})).head_dim == 6);
  CHECK(read_folder(with_null("head_dim")).head_dim == 4);
  refuses(changed({{"hidden_size", 9}}), {"hidden_size is 9", "head_dim"});
  refuses(changed({{"head_dim", 5}}), {"head_dim is 5", "even"});
  refuses(changed({{"head_dim", 0}}), {"head_dim is 0"});
}

TEST_CASE("config: end ids may be one, several, none, or come from generation_config.json") {
  CHECK(read_folder(changed({{"eos_token_id", 3}})).eos_ids == std::vector<int>{3});
  CHECK(read_folder(changed({{"eos_token_id", {3, 5}}})).eos_ids == std::vector<int>{3, 5});
  CHECK(read_folder(with_null("eos_token_id")).eos_ids.empty());
  CHECK(!read_folder(with_null("bos_token_id")).bos_id);
  for (const json& bad : {json("2"), json(2.0), json(true), json({1, "2"})}) {
    refuses(changed({{"eos_token_id", bad}}), {"eos_token_id"});
    refuses(changed({{"bos_token_id", bad}}), {"bos_token_id"});
  }
  refuses(changed({{"bos_token_id", {1, 2}}}), {"bos_token_id"});
  TempDir dir;
  dir.write("config.json", changed({{"eos_token_id", 3}}).dump());
  dir.write("generation_config.json", R"({"eos_token_id": [4, 5], "temperature": 0.6})");
  CHECK(read_config(Checkpoint::open(dir.path())).eos_ids == std::vector<int>{4, 5});
  dir.write("generation_config.json", R"({"temperature": 0.6})");
  CHECK(read_config(Checkpoint::open(dir.path())).eos_ids == std::vector<int>{3});
  dir.write("generation_config.json", R"({"eos_token_id": 77})");
  CHECK(read_config(Checkpoint::open(dir.path())).eos_ids.empty());
}

TEST_CASE("config: special ids beyond the vocabulary are not used, and a note says so") {
  for (const json& id : {json(16), json(128000), json(4294967296u), json({99})}) {
    const ModelConfig config = read_folder(changed({{"bos_token_id", id}}));
    CHECK(!config.bos_id);
    has_note(config, "bos_token_id " + (id.is_array() ? id[0] : id).dump());
  }
  const ModelConfig several = read_folder(changed({{"eos_token_id", {3, 128001, 5, 128009}}}));
  CHECK(several.eos_ids == std::vector<int>{3, 5});
  has_note(several, "128001");
  has_note(several, "128009");
  const ModelConfig none = read_folder(changed({{"eos_token_id", -1}, {"bos_token_id", -1}}));
  CHECK(none.eos_ids.empty());
  CHECK(none.notes.empty());
  has_note(read_file(tiny_gguf().u32("tokenizer.ggml.bos_token_id", 16)), "bos_token_id 16");
}

TEST_CASE("config: rope_scaling of transformers 4 and rope_parameters of 5 mean the same") {
  const json llama3 = {{"factor", 8.0},
                       {"low_freq_factor", 1.0},
                       {"high_freq_factor", 4.0},
                       {"original_max_position_embeddings", 32},
                       {"rope_type", "llama3"}};
  json parameters = llama3;
  parameters["rope_theta"] = 500000.0;
  for (const json& config : {changed({{"rope_theta", 500000.0}, {"rope_scaling", llama3}}),
                             changed({{"rope_parameters", parameters}, {"dtype", "bfloat16"}}),
                             changed({{"rope_theta", 500000}, {"rope_parameters", parameters}})}) {
    INFO(config.dump());
    const RopeConfig rope = read_folder(config).rope;
    CHECK(rope.theta == 500000.0);
    CHECK(rope.scaling == RopeScaling::Llama3);
    CHECK(rope.factor == 8.0);
    CHECK(rope.low_freq_factor == 1.0);
    CHECK(rope.high_freq_factor == 4.0);
    CHECK(rope.original_max_positions == 32);
  }
}

TEST_CASE("config: linear scaling may be named by type or by rope_type") {
  for (const char* key : {"type", "rope_type"}) {
    const RopeConfig rope =
        read_folder(changed({{"rope_scaling", {{key, "linear"}, {"factor", 4}}}})).rope;
    CHECK(rope.scaling == RopeScaling::Linear);
    CHECK(rope.factor == 4.0);
    CHECK(rope.theta == 10000.0);
  }
  const json plain = {{"rope_type", "default"}, {"rope_theta", 1e6}};
  CHECK(read_folder(changed({{"rope_parameters", plain}})).rope.theta == 1e6);
  CHECK(read_folder(with_null("rope_scaling")).rope.scaling == RopeScaling::None);
}

TEST_CASE("config: rotary settings that are unknown, incomplete or contradictory are refused") {
  const auto scaling = [](const json& value) { return changed({{"rope_scaling", value}}); };
  for (const char* type : {"dynamic", "yarn", "longrope", "su", "ntk", ""})
    refuses(scaling({{"rope_type", type}, {"factor", 2}}), {"rope_scaling.rope_type", "linear"});
  refuses(scaling({{"type", "yarn"}, {"factor", 2}}), {"rope_scaling.type", "yarn"});
  refuses(scaling({{"rope_type", 1}}), {"rope_scaling.rope_type is 1"});
  refuses(scaling({{"rope_type", "linear"}}), {"rope_scaling.factor is missing"});
  refuses(scaling({{"rope_type", "linear"}, {"factor", 0.5}}), {"rope_scaling.factor is 0.5"});
  refuses(scaling({{"rope_type", "linear"}, {"factor", "4"}}), {"rope_scaling.factor is \"4\""});
  refuses(scaling({{"factor", 4}}), {"rope_scaling.factor", "default"});
  refuses(scaling({{"rope_type", "linear"}, {"type", "llama3"}, {"factor", 2}}), {"rope_type"});
  refuses(scaling({{"rope_type", "linear"}, {"factor", 2}, {"mrope_section", {1, 2}}}),
          {"rope_scaling.mrope_section"});
  refuses(scaling({{"rope_type", "default"}, {"factor", 4}}), {"rope_scaling.factor", "default"});
  refuses(scaling({{"rope_type", "default"}, {"mrope_interleaved", false}}),
          {"rope_scaling.mrope_interleaved"});
  refuses(scaling("linear"), {"rope_scaling is \"linear\""});
  refuses(scaling({1}), {"rope_scaling is an array"});
  refuses(scaling({{"rope_type", "default"}, {"partial_rotary_factor", 0.5}}),
          {"rope_scaling.partial_rotary_factor is 0.5"});
  refuses(changed({{"partial_rotary_factor", 0.25}}), {"partial_rotary_factor is 0.25"});
  refuses(changed({{"rope_scaling", {{"type", "linear"}, {"factor", 2}}},
                   {"rope_parameters", {{"rope_type", "linear"}, {"factor", 4}}}}),
          {"rope_scaling", "rope_parameters"});
  refuses(changed({{"rope_theta", 10000.0}, {"rope_parameters", {{"rope_theta", 5e5}}}}),
          {"rope_theta"});
  const json llama3 = {{"rope_type", "llama3"},
                       {"factor", 8.0},
                       {"low_freq_factor", 1.0},
                       {"high_freq_factor", 4.0},
                       {"original_max_position_embeddings", 32}};
  for (const char* name :
       {"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"}) {
    json incomplete = llama3;
    incomplete.erase(name);
    if (name != std::string("original_max_position_embeddings"))
      refuses(scaling(incomplete), {std::string("rope_scaling.") + name + " is missing"});
    for (const json& bad : {json(0), json(-1), json("8"), json(true)}) {
      json wrong = llama3;
      wrong[name] = bad;
      refuses(scaling(wrong), {std::string("rope_scaling.") + name + " is "});
    }
  }
  json order = llama3;
  order["high_freq_factor"] = 1.0;
  refuses(scaling(order), {"rope_scaling.high_freq_factor is 1.0"});
}

TEST_CASE("config: rotary settings without effect are passed over with a note") {
  const auto scaling = [](const json& value) { return changed({{"rope_scaling", value}}); };
  for (const char* key : {"original_max_position_embeddings", "low_freq_factor", "attention_factor",
                          "beta_fast", "mscale", "an_unheard_of_setting"}) {
    const ModelConfig linear =
        read_folder(scaling({{"rope_type", "linear"}, {"factor", 4}, {key, 32}}));
    CHECK(linear.rope.scaling == RopeScaling::Linear);
    CHECK(linear.rope.factor == 4);
    has_note(linear, std::string("rope_scaling.") + key);
    const ModelConfig plain = read_folder(scaling({{"rope_type", "default"}, {key, 32}}));
    CHECK(plain.rope.scaling == RopeScaling::None);
    has_note(plain, std::string("rope_scaling.") + key);
  }
  CHECK(read_folder(scaling({{"rope_type", "default"}, {"factor", 1.0}})).rope.factor == 1);
}

TEST_CASE("config: llama3's original length is the context's where the file does not say") {
  const json llama3 = {{"rope_type", "llama3"},
                       {"factor", 8.0},
                       {"low_freq_factor", 1.0},
                       {"high_freq_factor", 4.0}};
  CHECK(read_folder(changed({{"rope_scaling", llama3}})).rope.original_max_positions == 64);
  refuses(changed({{"rope_scaling", llama3}, {"original_max_position_embeddings", 32}}),
          {"original_max_position_embeddings is 32", "64"});
}

TEST_CASE("config: a size that is absent is the class's default, and a note says so") {
  const auto without = [](const char* key, const json& base) {
    json config = base;
    config.erase(key);
    const ModelConfig read = read_folder(config);
    has_note(read, std::string(key) + " is absent");
    return read;
  };
  CHECK(without("max_position_embeddings", tiny_config()).max_positions == 2048);
  CHECK(without("max_position_embeddings", mistral()).max_positions == 131072);
  CHECK(without("vocab_size", tiny_config()).vocab_size == 32000);
  CHECK(without("hidden_size", tiny_config()).hidden_size == 4096);
  CHECK(without("intermediate_size", tiny_config()).intermediate_size == 11008);
  CHECK(without("intermediate_size", mistral()).intermediate_size == 14336);
  CHECK(without("num_hidden_layers", tiny_config()).layers == 32);
  CHECK(without("num_attention_heads", changed({{"hidden_size", 64}})).heads == 32);
  CHECK(read_folder(tiny_config()).notes.empty());
}

TEST_CASE("config: sizes must be integers from 1 to 2^31-1") {
  for (const char* key : {"vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
                          "num_attention_heads", "max_position_embeddings"})
    refuses(with_null(key), {std::string(key) + " is null"});
  const std::vector<json> bad = {"32",      32.0,           -1,  0,    2147483648u, UINT64_MAX,
                                 INT64_MIN, json::object(), {8}, true, 1e300,       ""};
  for (const char* key :
       {"vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
        "num_attention_heads", "num_key_value_heads", "head_dim", "max_position_embeddings"})
    for (const json& value : bad) refuses(changed({{key, value}}), {std::string(key) + " is "});
}

TEST_CASE("config: numbers must be finite and positive, in fp32 too") {
  for (const char* key : {"rms_norm_eps", "rope_theta"})
    for (const json& value : {json(0), json(-1e-5), json(1e-60), json(1e300), json("1e-5"),
                              json(true), json::array({1})})
      refuses(changed({{key, value}}), {std::string(key) + " is "});
  TempDir dir;
  std::string text = tiny_config().dump();
  text.insert(1, "\"rope_theta\":1e400,");
  dir.write("config.json", text);
  input_error([&] { Checkpoint::open(dir.path()); }, {"config.json"});
}

TEST_CASE("config: heads that cannot share key/value heads are refused") {
  refuses(changed({{"num_attention_heads", 4}, {"num_key_value_heads", 3}}), {"4", "3"});
  refuses(changed({{"num_key_value_heads", 4}}), {"num_key_value_heads"});
  refuses(changed({{"num_attention_heads", 2147483647},
                   {"num_key_value_heads", 1},
                   {"head_dim", 2147483646}}),
          {"head_dim"});
}

TEST_CASE("config: settings that change the mathematics are refused by name") {
  const json changes = {{"hidden_act", "gelu"},
                        {"is_causal", false},
                        {"scale_attn_weights", false},
                        {"norm_topk_prob", false},
                        {"num_experts_per_tok", 0},
                        {"attention_chunk_size", 0},
                        {"layer_norm_eps", 1e-5},
                        {"attn_logit_softcapping", 50.0},
                        {"final_logit_softcapping", 30.0},
                        {"num_experts", 8},
                        {"num_local_experts", 8},
                        {"logit_scale", 0.0625},
                        {"embedding_multiplier", 12},
                        {"norm_type", "layernorm"},
                        {"alibi", true},
                        {"is_encoder_decoder", true},
                        {"add_cross_attention", true},
                        {"pruned_heads", {{"0", {1}}}},
                        {"auto_map", {{"AutoModel", "modeling_x.X"}}}};
  for (const auto& [key, value] : changes.items()) refuses(changed({{key, value}}), {key + " is "});
  refuses(with_null("is_causal"), {"is_causal is null"});
  refuses(mistral({{"attention_bias", true}}), {"attention_bias is true"});
  refuses(mistral({{"mlp_bias", true}}), {"mlp_bias is true"});
  for (const char* key : {"attention_bias", "mlp_bias", "tie_word_embeddings"})
    refuses(changed({{key, 1}}), {std::string(key) + " is 1", "true or false"});
}

TEST_CASE("config: quantised weights are called by their method, and nothing is to be removed") {
  for (const char* method : {"bitsandbytes", "gptq", "awq", "fp8", "compressed-tensors"}) {
    const json config = changed({{"quantization_config", {{"quant_method", method}}}});
    refuses(config, {"quantised by", method});
    try {
      read_folder(config);
    } catch (const InputError& error) {
      CHECK(std::string(error.what()).find("remove") == std::string::npos);
    }
  }
  refuses(changed({{"quantization_config", {{"bits", 4}}}}), {"quantised", "quantization_config"});
}

TEST_CASE("config: keys that no class of transformers defines are passed over with a note") {
  const json foreign = {{"_model_name_or_path", "a name"},
                        {"trained_by", "someone"},
                        {"my_notes", {{"a", {1, 2.5}}}},
                        {"rope_interleaved", true},
                        {"an_unheard_of_setting", false},
                        {"mup_base", "\x1b[31m"}};
  for (const auto& [key, value] : foreign.items()) {
    const ModelConfig config = read_folder(changed({{key, value}}));
    has_note(config, quoted(key));
    CHECK(config.notes.size() == 1);
  }
  json many = tiny_config();
  for (int i = 0; i < 20; ++i) many["note_" + std::to_string(i)] = i;
  has_note(read_folder(many), "and 12 more");
}

TEST_CASE("config: Infinity and NaN are named where a number is needed, and else passed over") {
  TempDir dir;
  const auto read = [&](const std::string& setting) {
    std::string text = tiny_config().dump();
    dir.write("config.json", text.insert(1, setting + ","));
    return read_config(Checkpoint::open(dir.path()));
  };
  CHECK(read(R"("time_limits": [0.0, Infinity, -Infinity, NaN])").hidden_size == 8);
  CHECK(read(R"("text": "a \"NaN\" \\", "x": NaN)").hidden_size == 8);
  input_error([&] { read(R"("rope_theta": Infinity)"); }, {"rope_theta is \"Infinity\""});
  input_error([&] { read(R"("rope_theta": -NaN)"); }, {"config.json"});
}

TEST_CASE("config: settings at a value without effect, and harmless ones, are ignored") {
  json config = tiny_config();
  config["architectures"] = {"LlamaForCausalLM"};
  config["torch_dtype"] = "float16";
  config["pretraining_tp"] = 2;
  config["pad_token_id"] = -1;
  config["temperature"] = 0.6;
  config["unsloth_version"] = "2024.9";
  config["transformers.js_config"] = {{"dtype", "q4"}};
  config["quantization_config"] = nullptr;
  config["rope_interleaved"] = false;
  config["num_experts"] = 0;
  config["final_logit_softcapping"] = 0.0;
  config["pruned_heads"] = json::object();
  config["hidden_act"] = "silu";
  config["partial_rotary_factor"] = 1.0;
  config["is_causal"] = true;
  config["hidden_dropout_prob"] = 0.1;
  CHECK(read_folder(config).hidden_size == 8);
}

TEST_CASE("config: only LLaMA and Mistral are read") {
  refuses(changed({{"model_type", nullptr}}), {"model_type is missing"});
  refuses(changed({{"model_type", "qwen2"}}), {"model_type is \"qwen2\"", "llama", "mistral"});
  refuses(changed({{"model_type", 1}}), {"model_type is 1"});
  refuses(changed({{"model_type", "a\nb\xc3\xbc" + std::string(300, 'x')}}), {"model_type"});
}

TEST_CASE("config: the output is tied unless the checkpoint brings its own matrix") {
  const json tied = changed({{"tie_word_embeddings", true}});
  CHECK(read_folder(tied).tied_output);
  CHECK(read_folder(tied, {f32("model.embed_tokens.weight", {16, 8})}).tied_output);
  CHECK(read_folder(tied, {f32("lm_head.weight", {16, 8})}).tied_output);  // stored once
  const std::vector<BuiltTensor> both = {f32("lm_head.weight", {16, 8}), f32("model.embed_tokens.weight", {16, 8})};
  CHECK(!read_folder(tied, both).tied_output);
}

TEST_CASE("config: a tensor that has no place in the model is refused, a derived one is not") {
  const auto with = [](const std::string& name, const json& patch = json::object()) {
    read_folder(changed(patch), {f32("model.norm.weight", {8}), f32(name, {8})});
  };
  const std::string layer = "model.layers.0.";
  with(layer + "self_attn.rotary_emb.inv_freq");
  with(layer + "self_attn.q_proj.bias", {{"attention_bias", true}});
  with(layer + "mlp.up_proj.bias", {{"mlp_bias", true}});
  input_error([&] { with("model.norm2.weight", {{"attention_bias", true}}); },
              {"attention_bias is true", "no bias"});
  for (const std::string& name :
       {layer + "self_attn.q_proj.bias", layer + "mlp.up_proj.bias",
        std::string("model.layers.1.mlp.up_proj.weight"), layer + "self_attn.q_norm.weight",
        std::string("model.layers.x.mlp.up_proj.weight"), std::string("score.weight"),
        std::string("model.layers.99999999999999999999.mlp.up_proj.weight"), layer,
        layer + "self_attn.k_scale", std::string("")})
    input_error([&] { with(name); }, {"model.safetensors", quoted(name), "1 layers"});
}

TEST_CASE("config: gguf metadata give the same values as config.json, to the last bit") {
  GgufBuilder gguf = tiny_gguf();
  gguf.u32("tokenizer.ggml.bos_token_id", 1).u32("tokenizer.ggml.eos_token_id", 2);
  gguf.u32("llama.rope.dimension_count", 4).u32("llama.expert_count", 0);
  const ModelConfig ours = read_file(gguf);
  const ModelConfig theirs = read_folder(changed({{"tie_word_embeddings", true}}));
  CHECK(ours.model_type == "llama");
  CHECK(ours.vocab_size == theirs.vocab_size);
  CHECK(ours.hidden_size == theirs.hidden_size);
  CHECK(ours.intermediate_size == theirs.intermediate_size);
  CHECK(ours.layers == theirs.layers);
  CHECK(ours.heads == theirs.heads);
  CHECK(ours.kv_heads == theirs.kv_heads);
  CHECK(ours.head_dim == theirs.head_dim);
  CHECK(ours.rms_norm_eps == theirs.rms_norm_eps);
  CHECK(ours.max_positions == theirs.max_positions);
  CHECK(ours.sliding_window == theirs.sliding_window);
  CHECK(ours.rope.theta == theirs.rope.theta);
  CHECK(ours.rope.scaling == RopeScaling::None);
  CHECK(ours.tied_output == theirs.tied_output);
  CHECK(ours.bos_id == theirs.bos_id);
  CHECK(ours.eos_ids == theirs.eos_ids);
}

TEST_CASE("config: gguf biases, output and window come from what the file holds") {
  GgufBuilder gguf = tiny_gguf().u32("llama.attention.sliding_window", 9);
  gguf.u32("tokenizer.ggml.eos_token_id", 3).u32("tokenizer.ggml.eot_token_id", 4);
  gguf.tensor("output.weight", 0, {16, 8}, raw_floats(counting(128)));
  gguf.tensor("blk.0.attn_v.bias", 0, {4}, raw_floats(counting(4)));
  gguf.tensor("blk.0.ffn_down.bias", 0, {8}, raw_floats(counting(8)));
  const ModelConfig config = read_file(gguf);
  CHECK(!config.tied_output);
  CHECK(config.attention_bias);
  CHECK(config.mlp_bias);
  CHECK(config.sliding_window == 9);
  CHECK(!config.bos_id);
  CHECK(config.eos_ids == std::vector<int>{3, 4});
}

TEST_CASE("config: what well-known GGUF files lack is a note") {
  GgufBuilder mistral = tiny_gguf().text("general.name", "Mistral-7B-v0.1");
  has_note(read_file(mistral), "sliding window");
  CHECK(read_file(mistral.u32("llama.attention.sliding_window", 9)).notes.empty());
  GgufBuilder llama;
  llama.text("general.architecture", "llama").u32("llama.vocab_size", 16);
  llama.u32("llama.context_length", 131072).u32("llama.embedding_length", 8);
  llama.u32("llama.feed_forward_length", 12).u32("llama.block_count", 1);
  llama.u32("llama.attention.head_count", 2).f32("llama.attention.layer_norm_rms_epsilon", 1e-5f);
  CHECK(read_file(llama).notes.empty());
  llama.f32("llama.rope.freq_base", 500000.0f);
  has_note(read_file(llama), "rope_freqs.weight");
  llama.tensor("rope_freqs.weight", 0, {2}, raw_floats({1, 8}));
  CHECK(read_file(llama).notes.empty());
}

TEST_CASE("config: gguf rope scaling is a factor, or a tensor of divisors") {
  const auto scaled = [](const std::string& type, float factor) {
    GgufBuilder gguf = tiny_gguf();
    if (!type.empty()) gguf.text("llama.rope.scaling.type", type);
    return read_file(gguf.f32("llama.rope.scaling.factor", factor)).rope;
  };
  CHECK(scaled("linear", 1.1f).scaling == RopeScaling::Linear);
  CHECK(scaled("linear", 1.1f).factor == 1.1);
  CHECK(scaled("", 2.0f).factor == 2.0);
  CHECK(scaled("none", 2.0f).scaling == RopeScaling::None);
  CHECK(scaled("linear", 0.0f).scaling == RopeScaling::None);
  input_error([&] { scaled("yarn", 2.0f); }, {"llama.rope.scaling.type is \"yarn\""});

  const auto divisors = [](const std::vector<float>& values) {
    return tiny_gguf().tensor("rope_freqs.weight", 0, {values.size()}, raw_floats(values));
  };
  CHECK(read_file(divisors({1, 8})).rope.freq_divisors == std::vector<float>{1, 8});
  refuses_gguf(divisors({1, 2, 3}), {"rope_freqs.weight", "[3]", "[2]"});
  for (const float bad : {0.0f, -1.0f, INFINITY, NAN})
    refuses_gguf(divisors({1, bad}), {"rope_freqs.weight"});
  refuses_gguf(divisors({1, 8}).f32("llama.rope.scaling.factor", 2), {"rope.scaling.factor"});
}

TEST_CASE("config: gguf vocabulary size is the embedding's and must fit the tokens") {
  GgufBuilder gguf = tiny_gguf().texts("tokenizer.ggml.tokens", {"a", "b", "c"});
  CHECK(read_file(gguf).vocab_size == 3);
  gguf.tensor("token_embd.weight", 0, {3, 8}, raw_floats(counting(24)));
  CHECK(read_file(gguf).vocab_size == 3);
  GgufBuilder other = tiny_gguf().texts("tokenizer.ggml.tokens", {"a", "b"});
  other.tensor("token_embd.weight", 0, {3, 8}, raw_floats(counting(24)));
  refuses_gguf(other, {"tokenizer.ggml.tokens", "3 rows"});
  refuses_gguf(tiny_gguf().u32("tokenizer.ggml.tokens", 5), {"tokenizer.ggml.tokens is 5"});
}

TEST_CASE("config: gguf metadata that are missing, of a wrong type or unknown are refused") {
  const std::vector<std::pair<std::string, uint32_t>> sizes = {
      {"block_count", 1},          {"context_length", 64},      {"embedding_length", 8},
      {"feed_forward_length", 12}, {"attention.head_count", 2},
  };
  for (const auto& [missing, unused] : sizes) {
    GgufBuilder gguf;
    gguf.text("general.architecture", "llama").u32("llama.vocab_size", 16);
    gguf.f32("llama.attention.layer_norm_rms_epsilon", 1e-5f);
    GgufBuilder zero = gguf, text = gguf, list = gguf;
    for (const auto& [name, value] : sizes)
      if (name != missing)
        for (GgufBuilder* each : {&gguf, &zero, &text, &list}) each->u32("llama." + name, value);
    refuses_gguf(gguf, {"llama." + missing + " is missing"});
    refuses_gguf(zero.u32("llama." + missing, 0), {"llama." + missing + " is 0"});
    refuses_gguf(text.text("llama." + missing, "8"), {"llama." + missing + " is \"8\""});
    refuses_gguf(list.texts("llama." + missing, {"8"}), {"llama." + missing + " is an array of 1"});
  }
  refuses_gguf(tiny_gguf().u32("llama.expert_count", 8), {"llama.expert_count is 8"});
  refuses_gguf(tiny_gguf().f32("llama.logit_scale", 2), {"llama.logit_scale"});
  refuses_gguf(tiny_gguf().f32("llama.attention.scale", NAN), {"llama.attention.scale"});
  refuses_gguf(tiny_gguf().key("llama.attention.causal", 7, raw<uint8_t>(0)), {"attention.causal"});
  refuses_gguf(tiny_gguf().u32("llama.rope.dimension_count", 2), {"rope.dimension_count is 2"});
  refuses_gguf(tiny_gguf().u32("llama.attention.value_length", 2), {"attention.value_length is 2"});
  refuses_gguf(tiny_gguf().u32("llama.attention.key_length", 3), {"head_dim is 3", "even"});
  refuses_gguf(tiny_gguf().key("llama.rope.neox", 7, raw<uint8_t>(0)), {"llama.rope.neox"});
  refuses_gguf(tiny_gguf().tensor("blk.0.attn_q_norm.weight", 0, {4}, raw_floats(counting(4))),
               {"blk.0.attn_q_norm.weight"});
}

TEST_CASE("rope: frequencies that PyTorch's pow rounds its own way are PyTorch's") {
  // 1.0 / (1e8 ** (torch.arange(0, 128, 2) / 128)), PyTorch 2.13; at 37, 44 and 59 a correctly rounded
  // power would give other bits.
  ModelConfig config;
  config.head_dim = 128;
  config.rope.theta = 1e8;
  const std::vector<float> inv_freq = rope_inv_freq(config);
  const std::pair<size_t, float> expected[] = {
      {0, 1.0f},          {1, 0x1.7ff222p-1f},  {36, 0x1.094564p-15f}, {37, 0x1.8dd9b8p-16f},
      {44, 0x1.a86f0ap-19f}, {59, 0x1.6a3c0cp-25f}, {63, 0x1.ca31c8p-27f}};
  for (const auto& [i, bits] : expected) CHECK(inv_freq.at(i) == bits);
}
