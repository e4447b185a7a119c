#include <algorithm>
#include <cmath>
#include <ctime>
#include <limits>

#include "checkpoint/metadata.h"
#include "checkpoint_builder.h"

using namespace sinkref;

namespace {

std::vector<std::vector<float>> rows_of(const Checkpoint& checkpoint, const std::string& name,
                                        const std::vector<uint64_t>& shape) {
  const StoredMatrix matrix = checkpoint.matrix(name, shape);
  std::vector<std::vector<float>> rows;
  for (size_t row = 0; row < matrix.rows; ++row) rows.push_back(widen_row(matrix, row));
  return rows;
}

// llama.cpp's converter: w.reshape(heads, 2, head_dim / 2, cols).swapaxes(1, 2), so that row
// (head, pair p, half s) moves to (head, p, s).
std::vector<float> as_converter_permutes(const std::vector<float>& weights, size_t heads,
                                         size_t cols) {
  const size_t head_dim = weights.size() / cols / heads;
  std::vector<float> out;
  for (size_t head = 0; head < heads; ++head)
    for (size_t p = 0; p < head_dim / 2; ++p)
      for (size_t s = 0; s < 2; ++s) {
        const size_t row = head * head_dim + s * (head_dim / 2) + p;
        out.insert(out.end(), weights.begin() + row * cols, weights.begin() + (row + 1) * cols);
      }
  return out;
}

std::filesystem::path write_folder(const TempDir& dir, const std::vector<BuiltTensor>& tensors) {
  dir.write("config.json", tiny_config().dump());
  dir.write("model.safetensors", safetensors_file(tensors));
  return dir.path();
}

std::string index_of(const nlohmann::json& weight_map) {
  return nlohmann::json{{"metadata", {{"total_size", 0}}}, {"weight_map", weight_map}}.dump();
}

}  // namespace

TEST_CASE("checkpoint: gguf and safetensors of one model give identical rows in one order") {
  struct Pair {
    std::string hugging_face, gguf;
    std::vector<uint64_t> shape;
    size_t rotated_heads;
  };
  const std::string layer = "model.layers.0.";
  const std::vector<Pair> pairs = {
      {"model.embed_tokens.weight", "token_embd.weight", {16, 8}, 0},
      {"model.norm.weight", "output_norm.weight", {8}, 0},
      {"lm_head.weight", "output.weight", {16, 8}, 0},
      {layer + "input_layernorm.weight", "blk.0.attn_norm.weight", {8}, 0},
      {layer + "self_attn.q_proj.weight", "blk.0.attn_q.weight", {8, 8}, 2},
      {layer + "self_attn.q_proj.bias", "blk.0.attn_q.bias", {8}, 2},
      {layer + "self_attn.k_proj.weight", "blk.0.attn_k.weight", {4, 8}, 1},
      {layer + "self_attn.k_proj.bias", "blk.0.attn_k.bias", {4}, 1},
      {layer + "self_attn.v_proj.weight", "blk.0.attn_v.weight", {4, 8}, 0},
      {layer + "self_attn.v_proj.bias", "blk.0.attn_v.bias", {4}, 0},
      {layer + "self_attn.o_proj.weight", "blk.0.attn_output.weight", {8, 8}, 0},
      {layer + "self_attn.o_proj.bias", "blk.0.attn_output.bias", {8}, 0},
      {layer + "post_attention_layernorm.weight", "blk.0.ffn_norm.weight", {8}, 0},
      {layer + "mlp.gate_proj.weight", "blk.0.ffn_gate.weight", {12, 8}, 0},
      {layer + "mlp.up_proj.weight", "blk.0.ffn_up.weight", {12, 8}, 0},
      {layer + "mlp.down_proj.weight", "blk.0.ffn_down.weight", {8, 12}, 0},
  };
  TempDir dir;
  GgufBuilder gguf = tiny_gguf();
  std::vector<BuiltTensor> tensors;
  for (size_t i = 0; i < pairs.size(); ++i) {
    const Pair& pair = pairs[i];
    const size_t cols = pair.shape.size() == 2 ? pair.shape[1] : 1;
    const std::vector<float> values = counting(pair.shape[0] * cols, 1.0f + 0.1f * float(i));
    tensors.push_back({pair.hugging_face, "F32", pair.shape, raw_floats(values)});
    gguf.tensor(
        pair.gguf, 0, pair.shape,
        raw_floats(pair.rotated_heads ? as_converter_permutes(values, pair.rotated_heads, cols)
                                      : values));
  }
  const Checkpoint folder = Checkpoint::open(write_folder(dir, tensors));
  const Checkpoint file = Checkpoint::open(dir.write("model.gguf", gguf.build()));
  CHECK(folder.tensors().size() == pairs.size());
  CHECK(file.tensors().size() == pairs.size());
  for (const Pair& pair : pairs) {
    INFO(pair.hugging_face);
    if (pair.shape.size() == 1)
      CHECK(folder.vector(pair.hugging_face, pair.shape[0]) ==
            file.vector(pair.hugging_face, pair.shape[0]));
    else
      CHECK(rows_of(folder, pair.hugging_face, pair.shape) ==
            rows_of(file, pair.hugging_face, pair.shape));
    CHECK(file.tensors().at(pair.hugging_face).stored_name == pair.gguf);
  }
  CHECK(folder.vector("model.norm.weight", 8)[1] == Approx(2 * 1.1f));
}

TEST_CASE("checkpoint: gguf takes an explicit key_length as the head dimension of q and k") {
  TempDir dir;
  GgufBuilder gguf = tiny_gguf().u32("llama.attention.key_length", 6);
  const std::vector<float> values = counting(12 * 8);
  gguf.tensor("blk.0.attn_q.weight", 0, {12, 8}, raw_floats(as_converter_permutes(values, 2, 8)));
  const Checkpoint file = Checkpoint::open(dir.write("model.gguf", gguf.build()));
  const auto rows = rows_of(file, "model.layers.0.self_attn.q_proj.weight", {12, 8});
  for (size_t row = 0; row < rows.size(); ++row)
    CHECK(rows[row][0] == static_cast<float>(8 * row + 1));
}

TEST_CASE("checkpoint: gguf metadata of every type keep their values, strings their bytes") {
  TempDir dir;
  GgufBuilder gguf = tiny_gguf();
  const std::string invalid_utf8 = "\xff\xfe\x80 \x00!";
  gguf.key("u8", 0, raw<uint8_t>(200)).key("i8", 1, raw<int8_t>(-5));
  gguf.key("u16", 2, raw<uint16_t>(60000)).key("i16", 3, raw<int16_t>(-300));
  gguf.key("i32", 5, raw<int32_t>(-70000)).key("bool", 7, raw<uint8_t>(1));
  gguf.key("u64", 10, raw<uint64_t>(UINT64_MAX)).key("i64", 11, raw<int64_t>(INT64_MIN));
  gguf.key("f64", 12, raw(0.1)).texts("texts", {"", invalid_utf8, "Ġa"});
  gguf.key("bools", 9, raw<uint32_t>(7) + raw<uint64_t>(2) + raw<uint16_t>(0x0100));
  const Checkpoint file = Checkpoint::open(dir.write("model.gguf", gguf.build()));
  const auto& metadata = file.metadata().gguf;
  CHECK(metadata.at("u8") == 200);
  CHECK(metadata.at("i8") == -5);
  CHECK(metadata.at("u16") == 60000);
  CHECK(metadata.at("i16") == -300);
  CHECK(metadata.at("i32") == -70000);
  CHECK(metadata.at("bool") == true);
  CHECK(metadata.at("u64") == UINT64_MAX);
  CHECK(metadata.at("i64") == INT64_MIN);
  CHECK(metadata.at("f64") == 0.1);
  CHECK(metadata.at("llama.rope.freq_base") == 10000.0);
  CHECK(metadata.at("texts") == nlohmann::json::array({"", invalid_utf8, "Ġa"}));
  CHECK(metadata.at("bools") == nlohmann::json::array({false, true}));
}

TEST_CASE("checkpoint: gguf version 2 and an alignment of its own are read") {
  TempDir dir;
  GgufBuilder gguf = tiny_gguf().u32("general.alignment", 64);
  gguf.alignment = 64;
  gguf.version = 2;
  gguf.tensor("output_norm.weight", 0, {8}, raw_floats(counting(8)));
  gguf.tensor("blk.0.attn_norm.weight", 0, {8}, raw_floats(counting(8, 2)));
  const Checkpoint file = Checkpoint::open(dir.write("model.gguf", gguf.build()));
  CHECK(file.vector("model.norm.weight", 8) == counting(8));
  CHECK(file.vector("model.layers.0.input_layernorm.weight", 8) == counting(8, 2));
}

TEST_CASE("checkpoint: a gguf file may end without the padding of its last tensor") {
  TempDir dir;
  GgufBuilder gguf = tiny_gguf();
  gguf.tensor("output_norm.weight", 0, {2}, raw_floats({3, 4}));
  std::string content = gguf.build();
  content.resize(content.size() - 24);
  const Checkpoint file = Checkpoint::open(dir.write("model.gguf", content));
  CHECK(file.vector("model.norm.weight", 2) == std::vector<float>{3, 4});
}

TEST_CASE("checkpoint: the time to open a gguf file grows as its vocabulary") {
  TempDir dir;
  // Processor time, which other programs do not change; the least of three.
  const auto time_to_open = [&](size_t count) {
    std::vector<std::string> tokens;
    for (size_t i = 0; i < count; ++i) tokens.push_back("token" + std::to_string(i));
    const GgufBuilder gguf = tiny_gguf().texts("tokenizer.ggml.tokens", tokens);
    const auto path = dir.write("model.gguf", gguf.build());
    std::clock_t least = std::numeric_limits<std::clock_t>::max();
    for (int i = 0; i < 3; ++i) {
      const std::clock_t start = std::clock();
      const Checkpoint file = Checkpoint::open(path);
      least = std::min(least, std::clock() - start);
      CHECK(file.metadata().gguf.at("tokenizer.ggml.tokens").size() == count);
    }
    return static_cast<double>(least);
  };
  // 16 times as many: 16 times the time, and 256 times if every token looked at all the others.
  CHECK(time_to_open(128'000) < 64 * time_to_open(8'000));
}

TEST_CASE("checkpoint: safetensors of fp16 and bf16 widen exactly, at odd addresses too") {
  TempDir dir;
  const std::string odd_name = "padding" + std::string(3, 'x');
  const auto path =
      write_folder(dir, {{odd_name, "U8", {1}, "!"},
                         {"half", "F16", {2, 2}, raw<uint64_t>(0x0001'fc00'c000'3c00)},
                         {"brain", "BF16", {2}, raw<uint32_t>(0xbf80'4049)}});
  const Checkpoint folder = Checkpoint::open(path);
  CHECK(rows_of(folder, "half", {2, 2}) ==
        std::vector<std::vector<float>>{{1.0f, -2.0f}, {-INFINITY, 0x1p-24f}});
  CHECK(folder.vector("brain", 2) == std::vector<float>{3.140625f, -1.0f});
}

TEST_CASE("checkpoint: shards are read through links, and each tensor knows its file") {
  TempDir dir, blobs;
  dir.write("config.json", tiny_config().dump());
  const auto blob = blobs.write("0123abcd", safetensors_file({f32("a", {2, 3})}));
  std::filesystem::create_symlink(blob, dir.path() / "model-1.safetensors");
  dir.write("model-2.safetensors",
            safetensors_file({f32("b", {4}), f32("layers.0.rotary_emb.inv_freq", {4})}));
  dir.write("model.safetensors.index.json",
            index_of({{"a", "model-1.safetensors"}, {"b", "model-2.safetensors"}}));
  const Checkpoint folder = Checkpoint::open(dir.path());
  CHECK(folder.tensors().size() == 2);
  CHECK(rows_of(folder, "a", {2, 3})[1] == std::vector<float>{4, 5, 6});
  CHECK(folder.vector("b", 4) == counting(4));
  CHECK(folder.tensor("a", {2, 3}).file == dir.path() / "model-1.safetensors");
}

TEST_CASE("checkpoint: model.safetensors wins over an index beside it, as in transformers") {
  TempDir dir;
  write_folder(dir, {f32("a", {2})});
  dir.write("model.safetensors.index.json", "not JSON");
  CHECK(Checkpoint::open(dir.path()).has("a"));
}

TEST_CASE("checkpoint: a folder without weights opens, and says so when a tensor is asked for") {
  TempDir dir;
  dir.write("config.json", tiny_config().dump());
  const Checkpoint folder = Checkpoint::open(dir.path());
  CHECK(folder.metadata().config["hidden_size"] == 8);
  input_error([&] { folder.tensor("model.norm.weight", {8}); },
              {dir.path().string(), "model.norm.weight", "model.safetensors",
               "model.safetensors.index.json"});
  dir.write("pytorch_model.bin", "");
  input_error([&] { folder.matrix("model.norm.weight", {8}); },
              {dir.path().string(), "pytorch_model.bin", "safetensors"});
}

TEST_CASE("checkpoint: a missing tensor, another shape and an unusable dtype are named") {
  TempDir dir;
  const Checkpoint folder = Checkpoint::open(
      write_folder(dir, {f32("a", {2, 3}), {"wide", "F64", {2}, std::string(16, '\0')}}));
  const std::string file = (dir.path() / "model.safetensors").string();
  input_error([&] { folder.matrix("b", {2, 3}); }, {dir.path().string(), "\"b\"", "[2, 3]"});
  input_error([&] { folder.matrix("a", {3, 2}); }, {file, "\"a\"", "[2, 3]", "[3, 2]"});
  input_error([&] { folder.vector("a", 6); }, {file, "\"a\"", "[2, 3]", "[6]"});
  input_error([&] { folder.vector("wide", 2); }, {file, "\"wide\"", "F64"});
  const Checkpoint gguf = Checkpoint::open(dir.write(
      "m.gguf", tiny_gguf().tensor("output.weight", 10, {1, 256}, std::string(84, 1)).build()));
  input_error(
      [&] {
        gguf.matrix("lm_head.weight", {1, 256});
      },
      {"m.gguf", "\"output.weight\"", "Q2_K"});
}

TEST_CASE("checkpoint: a gguf file without its extension is known by its magic") {
  TempDir dir;
  CHECK(Checkpoint::open(dir.write("blob", tiny_gguf().build())).is_gguf());
}
