// A GGUF file and a Hugging Face folder of one model give one trace. The GGUF files are written
// here, as llama.cpp's converter writes them, from the tiny models of reference_outputs/.

#include <cmath>
#include <map>
#include <sstream>

#include "checkpoint_builder.h"
#include "sinkref/forward.h"
#include "sinkref/trace.h"

using namespace sinkref;

namespace {

const std::filesystem::path outputs = SINKREF_SOURCE_DIR "/reference_outputs";

const std::pair<const char*, const char*> layer_names[] = {
    {"input_layernorm", "attn_norm"},    {"self_attn.q_proj", "attn_q"},
    {"self_attn.k_proj", "attn_k"},      {"self_attn.v_proj", "attn_v"},
    {"self_attn.o_proj", "attn_output"}, {"post_attention_layernorm", "ffn_norm"},
    {"mlp.gate_proj", "ffn_gate"},       {"mlp.up_proj", "ffn_up"},
    {"mlp.down_proj", "ffn_down"},
};

/// "model.layers.2.mlp.up_proj.weight" -> "blk.2.ffn_up.weight"
std::string gguf_name(const std::string& name) {
  if (name == "model.embed_tokens.weight") return "token_embd.weight";
  if (name == "model.norm.weight") return "output_norm.weight";
  if (name == "lm_head.weight") return "output.weight";
  const std::string prefix = "model.layers.";
  REQUIRE(name.starts_with(prefix));
  const size_t dot = name.find('.', prefix.size()), kind = name.rfind('.');
  const std::string part = name.substr(dot + 1, kind - dot - 1);
  for (const auto& [hugging_face, gguf] : layer_names)
    if (part == hugging_face)
      return "blk." + name.substr(prefix.size(), dot - prefix.size()) + "." + gguf +
             name.substr(kind);
  FAIL("no GGUF name for " << name);
  return "";
}

/// The converter's permute(): each head's two rotation halves alternate.
std::string interleaved(const std::string& bytes, size_t rows, size_t head_dim) {
  std::string out;
  const size_t row_bytes = bytes.size() / rows;
  for (size_t head = 0; head < rows / head_dim; ++head)
    for (size_t i = 0; i < head_dim / 2; ++i)
      for (size_t half : {0, 1}) {
        const size_t row = head * head_dim + half * head_dim / 2 + i;
        out += bytes.substr(row * row_bytes, row_bytes);
      }
  return out;
}

uint32_t gguf_type(const StoredTensor& tensor) {
  REQUIRE(tensor.unsupported_dtype.empty());
  const std::map<DType, uint32_t> types = {{DType::F32, 0}, {DType::F16, 1}, {DType::BF16, 30}};
  return types.at(tensor.dtype);
}

GgufBuilder gguf_metadata(const ModelConfig& c) {
  const auto u32 = [](size_t n) { return static_cast<uint32_t>(n); };
  GgufBuilder gguf;
  gguf.text("general.architecture", "llama")
      .u32("llama.block_count", u32(c.layers))
      .u32("llama.context_length", u32(c.max_positions))
      .u32("llama.embedding_length", u32(c.hidden_size))
      .u32("llama.feed_forward_length", u32(c.intermediate_size))
      .u32("llama.attention.head_count", u32(c.heads))
      .u32("llama.attention.head_count_kv", u32(c.kv_heads))
      .u32("llama.attention.key_length", u32(c.head_dim))
      .u32("llama.attention.value_length", u32(c.head_dim))
      .f32("llama.attention.layer_norm_rms_epsilon", static_cast<float>(c.rms_norm_eps))
      .f32("llama.rope.freq_base", static_cast<float>(c.rope.theta))
      .u32("llama.rope.dimension_count", u32(c.head_dim))
      .u32("llama.vocab_size", u32(c.vocab_size));
  if (c.sliding_window) gguf.u32("llama.attention.sliding_window", u32(*c.sliding_window));
  if (c.rope.scaling == RopeScaling::Linear)
    gguf.text("llama.rope.scaling.type", "linear")
        .f32("llama.rope.scaling.factor", static_cast<float>(c.rope.factor));
  return gguf;
}

/// The converter's rope_freqs.weight: what llama3 scaling divides each frequency by, in fp32.
std::vector<float> llama3_divisors(const ModelConfig& c) {
  const RopeConfig& r = c.rope;
  std::vector<float> divisors;
  for (size_t i = 0; i < c.head_dim / 2; ++i) {
    const double exponent = 2.0 * static_cast<double>(i) / static_cast<double>(c.head_dim);
    const double wavelength = 2 * M_PI * std::pow(r.theta, exponent);
    const double smooth = (r.original_max_positions / wavelength - r.low_freq_factor) /
                          (r.high_freq_factor - r.low_freq_factor);
    if (wavelength < r.original_max_positions / r.high_freq_factor)
      divisors.push_back(1);
    else if (wavelength > r.original_max_positions / r.low_freq_factor)
      divisors.push_back(static_cast<float>(r.factor));
    else
      divisors.push_back(static_cast<float>(1 / ((1 - smooth) / r.factor + smooth)));
  }
  return divisors;
}

std::string as_gguf(const Model& model) {
  const ModelConfig& c = model.config();
  GgufBuilder gguf = gguf_metadata(c);
  for (const Model::Needed& needed : model.needed_tensors()) {
    const StoredTensor& tensor = model.checkpoint().tensor(needed.name, needed.shape);
    std::string bytes(reinterpret_cast<const char*>(tensor.data), tensor.bytes);
    if (needed.name.find("q_proj") != std::string::npos ||
        needed.name.find("k_proj") != std::string::npos)
      bytes = interleaved(bytes, needed.shape[0], c.head_dim);
    gguf.tensor(gguf_name(needed.name), gguf_type(tensor), needed.shape, bytes);
  }
  if (c.rope.scaling == RopeScaling::Llama3)
    gguf.tensor("rope_freqs.weight", 0, {c.head_dim / 2}, raw_floats(llama3_divisors(c)));
  return gguf.build();
}

std::vector<int> some_tokens(const ModelConfig& config) {
  std::vector<int> tokens = {1};
  for (size_t i = 0; i < 40; ++i)
    tokens.push_back(static_cast<int>((i * i * 31 + i * 17 + 5) % config.vocab_size));
  tokens.insert(tokens.end(), 20, 7);
  return tokens;
}

/// Writes the trace of every hook, as the command does.
void write_trace(const Model& model, const std::filesystem::path& file) {
  const std::vector<int> tokens = some_tokens(model.config());
  const std::vector<Hook> hooks = all_hooks(model.config().layers);
  RunOptions options;
  Forward<float> forward(model, options);
  TraceWriter<float> writer(
      file, false, model.config(), hooks, {tokens},
      trace_metadata(model, model.config().layers, "fp32", Softmax::standard));
  Hooks<float> watched;
  writer.attach(watched);
  std::vector<Sequence<float>> batch;
  batch.push_back(forward.start(tokens));
  forward.run(batch, watched);
  writer.commit();
}

std::string bytes_of(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  std::ostringstream text;
  text << in.rdbuf();
  return std::move(text).str();
}

struct Both {
  TempDir dir;
  Model folder, gguf;
  explicit Both(const std::filesystem::path& of)
      : folder(Model::open(of)), gguf(Model::open(dir.write("model.gguf", as_gguf(folder)))) {
    write_trace(folder, dir.path() / "folder.trace");
    write_trace(gguf, dir.path() / "gguf.trace");
  }
};

}  // namespace

TEST_CASE("gguf: the whole trace has the bytes of the Hugging Face folder's", "[gguf]") {
  // F32; F16 with grouped heads, biases and an explicit head_dim; a window; BF16 and a tied output,
  // for which tiny_llama3 goes without its scaling.
  const TempDir tied;
  nlohmann::json config = nlohmann::json::parse(bytes_of(outputs / "tiny_llama3" / "config.json"));
  config["rope_parameters"] = {{"rope_type", "default"}, {"rope_theta", 500000.0}};
  tied.write("config.json", config.dump());
  tied.write("model.safetensors", bytes_of(outputs / "tiny_llama3" / "model.safetensors"));
  for (const std::filesystem::path& model :
       {outputs / "tiny_llama1", outputs / "tiny_llama2", outputs / "tiny_mistral", tied.path()}) {
    const Both both(model);
    INFO(model);
    CHECK(both.gguf.config().tied_output == (model == tied.path()));
    CHECK(both.gguf.config().attention_bias == (model.filename() == "tiny_llama2"));
    const std::string expected = bytes_of(both.dir.path() / "folder.trace");
    CHECK(expected.size() > 100'000);
    CHECK(bytes_of(both.dir.path() / "gguf.trace") == expected);
  }
}

TEST_CASE("gguf: with llama3 scaling a last bit of inv_freq may differ, and what follows from it",
          "[gguf]") {
  const Both both(outputs / "tiny_llama3");
  const std::vector<float>&a = both.folder.inv_freq(), &b = both.gguf.inv_freq();
  REQUIRE(a.size() == b.size());
  for (size_t i = 0; i < a.size(); ++i) CHECK((a[i] == b[i] || std::nextafter(a[i], b[i]) == b[i]));
  const TraceFile folder = TraceFile::open(both.dir.path() / "folder.trace");
  const TraceFile gguf = TraceFile::open(both.dir.path() / "gguf.trace");
  CHECK(folder.metadata().at("weights_sha256") == gguf.metadata().at("weights_sha256"));
  REQUIRE(folder.names() == gguf.names());
  // Nothing before the first rotation knows of it.
  for (const char* name : {"tokens", "hook_embed", "blocks.0.ln1.hook_normalized",
                           "blocks.0.attn.hook_q", "blocks.0.attn.hook_k", "blocks.0.attn.hook_v"})
    CHECK(folder.values(name) == gguf.values(name));
  // Position 0 is not rotated, and sees no other.
  for (const std::string& name : folder.names()) {
    const std::vector<uint64_t> shape = folder.shape(name);
    const bool attention = name.ends_with("hook_attn_scores") || name.ends_with("hook_pattern");
    const std::vector<double> ours = folder.values(name), theirs = gguf.values(name);
    const size_t heads = attention ? shape[1] : 1, rows = shape[attention ? 2 : 1];
    const size_t width = ours.size() / heads / rows;
    size_t different = 0;
    for (size_t head = 0; head < heads; ++head)
      for (size_t i = 0; i < width; ++i)
        different += ours[head * rows * width + i] != theirs[head * rows * width + i];
    INFO(name);
    CHECK(different == 0);
  }
}
