// What the tables say of hooks and tensors, held against what others call them and against the model.

#include <catch2/catch.hpp>
#include <set>

#include "checkpoint/gguf_names.h"
#include "model/tensors.h"
#include "sinkref/forward.h"

using namespace sinkref;

namespace {

const std::string outputs = SINKREF_SOURCE_DIR "/reference_outputs/";
const char* const tiny_models[] = {"tiny_llama1", "tiny_llama2", "tiny_llama3", "tiny_mistral"};

using Shape = std::vector<size_t>;

std::vector<float> logits_of(const Model& model) {
  std::vector<float> all;
  Hooks<float> hooks;
  hooks.add({HookPoint::Logits, 0}, [&](const Activation<float>& a) {
    for (size_t r = 0; r < a.rows.size(); ++r) all.insert(all.end(), a.row(r), a.row(r) + a.width);
  });
  run(model, {}, {{3, 9, 27, 3}}, hooks);
  return all;
}

}  // namespace

TEST_CASE("hooks: TransformerLens's names, in the order of the computation, with their shapes", "[hooks]") {
  ModelConfig c;
  c.layers = 2;
  c.heads = 4;
  c.kv_heads = 2;
  c.head_dim = 8;
  c.hidden_size = 24;
  c.intermediate_size = 40;
  c.vocab_size = 100;
  const Shape d = {24}, one = {1}, q = {4, 8}, kv = {2, 8}, heads = {4}, m = {40};
  const std::vector<std::pair<std::string, Shape>> in_block = {
      {"hook_resid_pre", d}, {"ln1.hook_scale", one}, {"ln1.hook_normalized", d}, {"attn.hook_q", q},
      {"attn.hook_k", kv}, {"attn.hook_v", kv}, {"attn.hook_rot_q", q}, {"attn.hook_rot_k", kv},
      {"attn.hook_attn_scores", heads}, {"attn.hook_pattern", heads}, {"attn.hook_z", q},
      {"hook_attn_out", d}, {"hook_resid_mid", d}, {"ln2.hook_scale", one}, {"ln2.hook_normalized", d},
      {"mlp.hook_pre", m}, {"mlp.hook_pre_linear", m}, {"mlp.hook_post", m}, {"hook_mlp_out", d},
      {"hook_resid_post", d}};
  std::vector<std::pair<std::string, Shape>> expected = {{"hook_embed", d}};
  for (const char* block : {"blocks.0.", "blocks.1."})
    for (const auto& [name, shape] : in_block) expected.push_back({block + name, shape});
  expected.push_back({"ln_final.hook_scale", one});
  expected.push_back({"ln_final.hook_normalized", d});
  expected.push_back({"logits", {100}});

  std::vector<std::pair<std::string, Shape>> found;
  const std::vector<Hook> hooks = all_hooks(c.layers);
  for (size_t i = 0; i < hooks.size(); ++i) {
    found.push_back({hook_name(hooks[i]), hook_shape(hooks[i].point, c)});
    CHECK(hook_index(hooks[i], c.layers) == i);
    CHECK(hook_info(hooks[i].point).point == hooks[i].point);
  }
  CHECK(found == expected);
  CHECK(blocks_needed({HookPoint::Embed, 0}, 2) == 0);
  CHECK(blocks_needed({HookPoint::ResidPre, 1}, 2) == 2);
  CHECK(blocks_needed({HookPoint::LnFinalScale, 0}, 2) == 2);
}

TEST_CASE("run: every hook fires, in the order of the table, and one that cannot is an error", "[hooks]") {
  for (const std::string kernel : {"auto", "spec"}) {
    const Model model = Model::open(outputs + "tiny_llama2");
    RunOptions options;
    options.kernel = kernel;
    std::vector<std::string> fired, expected;
    Hooks<float> hooks;
    for (const Hook hook : all_hooks(model.config().layers)) {
      expected.push_back(hook_name(hook));
      hooks.add(hook, [&](const Activation<float>& a) {
        if (fired.empty() || fired.back() != hook_name(a.hook)) fired.push_back(hook_name(a.hook));
      });
    }
    run(model, options, {{1, 2}}, hooks);
    // Scores and pattern come head by head, or tile by tile.
    std::vector<std::string> first_times;
    for (const std::string& name : fired)
      if (std::find(first_times.begin(), first_times.end(), name) == first_times.end())
        first_times.push_back(name);
    CHECK(first_times == expected);

    Hooks<float> beyond;
    beyond.add({HookPoint::ResidPost, model.config().layers}, [](const Activation<float>&) {});
    CHECK_THROWS_WITH(run(model, options, {{1, 2}}, beyond), Catch::Contains("never ran"));
    Hooks<float> skipped;
    skipped.add({HookPoint::ResidPost, 0}, [](const Activation<float>&) {});
    skipped.add({HookPoint::ResidPre, 1}, [](const Activation<float>&) {});
    CHECK_THROWS_WITH(run(model, options, {{1, 2}}, skipped, 1),
                      Catch::Contains("blocks.0.hook_resid_post"));
  }
}

TEST_CASE("run: as many blocks as the hooks need, and no logits that nobody asks for", "[hooks]") {
  const Model model = Model::open(outputs + "tiny_llama1");
  const size_t layers = model.config().layers;
  const auto extent = [&](std::vector<Hook> on) {
    Hooks<float> hooks;
    for (const Hook hook : on) hooks.add(hook, [](const Activation<float>&) {});
    return extent_of(hooks, model.config());
  };
  CHECK(extent({}).end_block == 0);
  CHECK(extent({{HookPoint::Embed, 0}}).end_block == 0);
  CHECK(extent({{HookPoint::Q, 1}, {HookPoint::Z, 0}}).end_block == 2);
  CHECK(extent({{HookPoint::Q, 1}}).logits == LogitRows::none);
  CHECK(extent({{HookPoint::LnFinalScale, 0}}).end_block == layers);
  CHECK(extent({{HookPoint::LnFinalScale, 0}}).logits == LogitRows::none);
  CHECK(extent({{HookPoint::Logits, 0}}).end_block == layers);
  CHECK(extent({{HookPoint::Logits, 0}}).logits == LogitRows::hooked);
}

TEST_CASE("tensors: both names of each, there and back", "[tensors]") {
  CHECK(hugging_face_name("blk.3.attn_q.weight") == "model.layers.3.self_attn.q_proj.weight");
  CHECK(hugging_face_name("blk.0.ffn_down.bias") == "model.layers.0.mlp.down_proj.bias");
  CHECK(hugging_face_name("token_embd.weight") == "model.embed_tokens.weight");
  CHECK(hugging_face_name("output_norm.weight") == "model.norm.weight");
  CHECK(hugging_face_name("output.weight") == "lm_head.weight");
  for (const char* none : {"rope_freqs.weight", "blk.attn_q.weight", "attn_q.weight", "blk.0.attn_q.scale",
                           "blk.0.token_embd.weight", "weight", ""})
    CHECK(hugging_face_name(none) == none);
  std::set<std::string> seen;
  for (const TensorInfo& tensor : tensor_table()) {
    const std::string gguf = std::string(tensor.in_block ? "blk.7." : "") + tensor.gguf + ".weight";
    CHECK(hugging_face_name(gguf) == tensor_name(tensor, 7));
    CHECK(is_rotated(gguf) == tensor.rotated);
    CHECK(seen.insert(gguf).second);
    CHECK(seen.insert(tensor_name(tensor, 7)).second);
  }
}

TEST_CASE("tensors: a model's are those of its configuration, and no others", "[tensors]") {
  ModelConfig c;
  c.layers = 2;
  c.attention_bias = true;
  CHECK(is_tensor_of("model.layers.1.self_attn.o_proj.bias", c));
  CHECK(is_tensor_of("lm_head.weight", c));
  for (const char* other : {"model.layers.2.self_attn.o_proj.bias", "model.layers.1.mlp.up_proj.bias",
                            "model.layers.-1.input_layernorm.weight", "model.layers.01x.input_layernorm.weight",
                            "model.norm.bias", "lm_head.bias", "model.layers.1.self_attn.q_proj.lora_A.weight",
                            "input_layernorm.weight", "model.layers.0", "model.layers.99999999999.mlp.up_proj.weight"})
    CHECK_FALSE(is_tensor_of(other, c));
}

TEST_CASE("tensors: each that a model calls for has a say in its logits", "[tensors]") {
  for (const char* name : tiny_models) {
    const std::vector<float> expected = logits_of(Model::open(outputs + name));
    for (const Model::Needed& needed : Model::open(outputs + name).needed_tensors()) {
      Checkpoint checkpoint = Checkpoint::open(outputs + name);
      std::vector<float> values;
      if (needed.shape.size() == 1) {
        values = checkpoint.vector(needed.name, needed.shape[0]);
      } else {
        const StoredMatrix matrix = checkpoint.matrix(needed.name, needed.shape);
        for (size_t r = 0; r < matrix.rows; ++r)
          for (const float x : widen_row(matrix, r)) values.push_back(x);
      }
      for (float& x : values) x = x * 1.5f + 0.25f;
      checkpoint.replace(needed.name, values);
      INFO(name << ": " << needed.name);
      const std::vector<float> changed = logits_of(Model(checkpoint));
      CHECK(changed.size() == expected.size());
      CHECK(changed != expected);
    }
  }
}

TEST_CASE("tensors: every product that a hook shows has its matrix", "[tensors]") {
  const Model model = Model::open(outputs + "tiny_llama3");
  for (const Hook hook : all_hooks(1)) {
    if (hook_info(hook.point).kind != HookKind::product) {
      CHECK_THROWS_AS(matrix_of(model, hook), std::logic_error);
      continue;
    }
    size_t width = 1;
    for (const size_t extent : hook_shape(hook.point, model.config())) width *= extent;
    CHECK(matrix_of(model, hook).rows == width);
  }
}
