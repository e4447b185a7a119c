// Weights that are NaN or infinite, and numbers that overflow: an error that names the cause.

#include <limits>
#include <sstream>

#include "checkpoint_builder.h"
#include "sinkref/forward.h"

using namespace sinkref;

namespace {

const std::filesystem::path source = SINKREF_SOURCE_DIR "/reference_outputs/tiny_llama1";

/// tiny_llama1 (fp32) with element 0 of one tensor replaced.
class Changed {
 public:
  Changed(const std::string& tensor, float value) {
    std::filesystem::copy(source / "config.json", dir_.path());
    std::ostringstream text;
    text << std::ifstream(source / "model.safetensors", std::ios::binary).rdbuf();
    std::string bytes = std::move(text).str();
    uint64_t header = 0;
    std::memcpy(&header, bytes.data(), 8);
    const auto offset = nlohmann::json::parse(bytes.substr(8, header))[tensor]["data_offsets"][0];
    std::memcpy(bytes.data() + 8 + header + offset.get<uint64_t>(), &value, 4);
    dir_.write("model.safetensors", bytes);
  }
  Model model() const { return Model::open(dir_.path()); }

 private:
  TempDir dir_;
};

template <class T>
void run(const Model& model, const std::vector<int>& tokens) {
  Forward<T> forward(model, {});
  Hooks<T> none;
  std::vector<Sequence<T>> batch;
  batch.push_back(forward.start(tokens));
  forward.run(batch, none);
}

constexpr float nan_value = std::numeric_limits<float>::quiet_NaN();
constexpr float infinity = std::numeric_limits<float>::infinity();

}  // namespace

TEST_CASE("non-finite: a NaN in any tensor stops a run and the hash, and is named", "[finite]") {
  for (const Model::Needed& needed : Model::open(source).needed_tensors()) {
    const Changed changed(needed.name, nan_value);
    const Model model = changed.model();  // opening reads no weights
    const std::vector<std::string> named = {"model.safetensors", "\"" + needed.name + "\"",
                                            "holds NaN at row 0, column 0"};
    input_error([&] { run<float>(model, {5, 0, 7}); }, named);
    input_error([&] { run<double>(model, {5, 0, 7}); }, named);
    input_error([&] { model.weights_sha256(model.config().layers); }, named);
  }
}

TEST_CASE("non-finite: an infinite weight is named as one", "[finite]") {
  for (const float value : {infinity, -infinity})
    input_error([&] { run<float>(Changed("model.layers.1.mlp.up_proj.weight", value).model(), {1}); },
                {"\"model.layers.1.mlp.up_proj.weight\"", "an infinity"});
}

TEST_CASE("non-finite: a row that no token asks for harms no run, but the model has no hash",
          "[finite]") {
  const Changed changed("model.embed_tokens.weight", nan_value);
  const Model model = changed.model();
  CHECK_NOTHROW(run<float>(model, {5, 7}));
  input_error([&] { model.weights_sha256(0); }, {"\"model.embed_tokens.weight\""});
}

TEST_CASE("non-finite: finite weights that overflow fp32 are told from broken ones", "[finite]") {
  const Changed changed("model.layers.1.post_attention_layernorm.weight", 3e38f);
  const Model model = changed.model();
  input_error([&] { run<float>(model, {5, 0, 7}); },
              {"after block 1", "fp32 overflows", "--precision fp64"});
  CHECK_NOTHROW(run<double>(model, {5, 0, 7}));
  CHECK(model.weights_sha256(model.config().layers).size() == 64);
}
