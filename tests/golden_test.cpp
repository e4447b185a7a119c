#include "verify/golden.h"

#include <catch2/catch.hpp>
#include <filesystem>
#include <limits>

#include "checkpoint/readers.h"
#include "checkpoint_builder.h"
#include "sinkref/trace.h"
#include "verify/trace_values.h"

using namespace sinkref;

namespace {

const std::filesystem::path outputs = SINKREF_SOURCE_DIR "/reference_outputs";

void require_agreement(const Model& model, const std::filesystem::path& folder) {
  size_t files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with("golden_")) continue;
    ++files;
    const GoldenResult result = compare_with_golden(model, "auto", entry.path());
    INFO(entry.path() << " worst ratio " << result.worst_ratio);
    for (const GoldenTensor& tensor : result.tensors) {
      INFO(tensor.name << ": rms " << tensor.ours.rms << " of " << tensor.floor.rms << ", by row "
                       << tensor.ours.row_rms << " of " << tensor.floor.row_rms);
      CHECK(tensor.within);
    }
    CHECK(result.inv_freq_equal);
    CHECK(result.argmax_equal == result.argmax_compared);
    CHECK(result.generated_equal == result.generated);
    CHECK(result.agrees);
  }
  REQUIRE(files >= 3);
}

/// A golden taken apart, so that a test can damage it.
struct Golden {
  std::vector<BuiltTensor> tensors;
  nlohmann::json metadata;

  explicit Golden(const std::filesystem::path& path) {
    const TraceFile file = TraceFile::open(path);
    metadata = file.metadata();
    for (const std::string& name : file.names()) {
      const StoredTensor& tensor = file.tensor(name);
      uint64_t bytes = dtype_text(tensor) == "F32" ? 4 : 8;
      for (const uint64_t extent : tensor.shape) bytes *= extent;
      tensors.push_back({name, dtype_text(tensor), tensor.shape,
                         {reinterpret_cast<const char*>(tensor.data), bytes}});
    }
  }
  /// The tensor of a name with zeros of another shape or dtype.
  void replace(const std::string& name, const std::vector<uint64_t>& shape, const std::string& dtype = "F64") {
    uint64_t bytes = dtype == "F32" ? 4 : dtype == "U8" ? 1 : 8;
    for (const uint64_t extent : shape) bytes *= extent;
    for (BuiltTensor& tensor : tensors)
      if (tensor.name == name) tensor = {name, dtype, shape, std::string(bytes, '\0')};
  }
  void remove(const std::string& name) {
    std::erase_if(tensors, [&](const BuiltTensor& tensor) { return tensor.name == name; });
  }
  void set_ids(const std::string& name, const std::vector<int64_t>& ids) {
    replace(name, {1, ids.size()}, "I64");
    for (BuiltTensor& tensor : tensors)
      if (tensor.name == name) std::memcpy(tensor.bytes.data(), ids.data(), tensor.bytes.size());
  }
  std::string bytes() const {
    nlohmann::json header = {{"__metadata__", metadata}};
    std::string data;
    for (const BuiltTensor& tensor : tensors) {
      const size_t begin = data.size();
      data += tensor.bytes;
      header[tensor.name] = {{"dtype", tensor.dtype}, {"shape", tensor.shape},
                             {"data_offsets", {begin, data.size()}}};
    }
    return safetensors_file(header.dump(), data);
  }
};

}  // namespace

TEST_CASE("golden: every tensor of the tiny models is as near to the truth as Hugging Face",
          "[golden]") {
  for (const char* name : {"tiny_llama1", "tiny_llama2", "tiny_llama3", "tiny_mistral"})
    require_agreement(Model::open(outputs / name), outputs / name);
}

TEST_CASE("golden: SmolLM2-135M from its GGUF is as near to the truth as Hugging Face",
          "[golden][smollm2]") {
  const std::filesystem::path gguf =
      SINKREF_SOURCE_DIR "/models/SmolLM2-135M-Instruct.Q4_1.gguf";
  INFO("tools/get_smollm2.sh models fetches the model");
  REQUIRE(std::filesystem::exists(gguf));
  require_agreement(Model::open(gguf), outputs / "smollm2");
}

TEST_CASE("golden: the comparator rejects NaN, wrong sign, wrong size and nothing at all",
          "[golden]") {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const double infinity = std::numeric_limits<double>::infinity();
  const std::vector<double> truth = {1, 2, 3, 4};
  const auto rms = [&](const std::vector<double>& a, const std::vector<double>& b) {
    return error_against(a, b, 2, false).rms;
  };
  CHECK(rms(truth, truth) == 0);
  CHECK(rms(truth, {1, 2, 3, nan}) == infinity);
  CHECK(rms({1, 2, 3, nan}, {1, 2, 3, nan}) == infinity);
  CHECK(rms(truth, {1, 2, 3, -4}) == 4);
  CHECK(rms(truth, {1, 2, 3}) == infinity);
  CHECK(rms({}, {}) == infinity);
  CHECK(rms({1, 2, 3, -infinity}, {1, 2, 3, -infinity}) == 0);
  CHECK(rms({1, 2, 3, -infinity}, {1, 2, 3, 5}) == infinity);
  CHECK(rms({1, 2, 3, 4}, {1, 2, 3, -infinity}) == infinity);
  CHECK(rms({-infinity, -infinity}, {-infinity, -infinity}) == infinity);  // nothing was compared
}

TEST_CASE("golden: a small row's error is not hidden by a massive one", "[golden]") {
  const Error error = error_against({1e4, 1e4, 1, 1}, {1e4, 1e4, 1.5, 1.5}, 2, false);
  CHECK(error.row_rms == Approx(0.5 / std::sqrt(2.0)));
}

TEST_CASE("golden: a damaged file is refused in one line before anything runs", "[golden]") {
  const Model model = Model::open(outputs / "tiny_llama3");
  const TempDir folder;
  const Golden whole(outputs / "tiny_llama3" / "golden_prompt.safetensors");
  const auto length = TraceFile::open(outputs / "tiny_llama3" / "golden_prompt.safetensors").shape("tokens")[1];
  const auto check = [&](const std::function<void(Golden&)>& damage, const std::vector<std::string>& parts) {
    Golden golden = whole;
    damage(golden);
    const std::filesystem::path file = folder.write("g.safetensors", golden.bytes());
    for (const bool run : {false, true}) {
      input_error(
          [&] {
            if (run) compare_with_golden(model, "auto", file);
            else require_golden_of(model, file);
          },
          parts);
    }
  };
  const std::string post = "blocks.1.hook_resid_post", scores = "blocks.0.attn.hook_attn_scores";
  // As it is it passes: what follows is refused for what was damaged.
  CHECK_NOTHROW(require_golden_of(model, folder.write("whole.safetensors", whole.bytes())));

  // Shapes: too short, too long, of other rank, without rows; for each kind of tensor.
  for (const std::vector<uint64_t>& shape : std::vector<std::vector<uint64_t>>{
           {}, {3}, {1}, {0}, {1, length}, {1, length, 3}, {1, length, 0}, {1, 0, 64}, {0, length, 64},
           {2, length, 64}, {1, length + 1, 64}, {1, length, 64, 1}, {1, 1, 64 * length}}) {
    check([&](Golden& g) { g.replace(post, shape); }, {post, "expected"});
    check([&](Golden& g) { g.replace("logits", shape); }, {"logits", "expected"});
    check([&](Golden& g) { g.replace("blocks.0.attn.hook_q", shape); }, {"hook_q", "expected"});
    check([&](Golden& g) { g.replace(scores, shape); }, {scores, "expected"});
  }
  check([&](Golden& g) { g.replace(scores, {1, 4, length, length - 1}); }, {scores});
  check([&](Golden& g) { g.replace(scores, {1, 8, length, length / 2}); }, {scores});
  for (const std::vector<uint64_t>& shape : std::vector<std::vector<uint64_t>>{{}, {0}, {5}, {1, 0}, {2, 1}, {1, 1, 1}})
    check([&](Golden& g) { g.replace("tokens", shape, "I64"); }, {"\"tokens\"", "expected"});
  check([&](Golden& g) { g.replace("generated", {0}, "I64"); }, {"generated"});
  check([&](Golden& g) { g.replace("generated", {1, 0}, "I64"); }, {"generated"});
  check([&](Golden& g) { g.replace("rope.inv_freq", {3}, "F32"); }, {"rope.inv_freq"});
  check([&](Golden& g) { g.replace("rope.inv_freq", {}, "F32"); }, {"rope.inv_freq"});

  // Numbers of another kind.
  check([&](Golden& g) { g.replace(post, {1, length, 64}, "I64"); }, {post, "dtype I64"});
  check([&](Golden& g) { g.replace("tokens", {1, length}, "F64"); }, {"tokens", "dtype F64"});
  check([&](Golden& g) { g.set_ids("tokens", {1, 512}); }, {"tokens", "512", "511"});
  check([&](Golden& g) { g.set_ids("tokens", {-1, 2}); }, {"tokens", "-1"});
  check([&](Golden& g) { g.set_ids("tokens", {int64_t{1} << 40}); }, {"tokens"});
  check([&](Golden& g) { g.set_ids("tokens", {std::numeric_limits<int64_t>::max()}); }, {"holds 9223372036854775808 at"});
  check([&](Golden& g) { g.set_ids("generated", {3, 99999}); }, {"generated", "99999"});

  // Tensors that are not there, or that nothing would be compared with.
  for (const char* name : {"tokens", "rope.inv_freq"})
    check([&](Golden& g) { g.remove(name); }, {name, "is not there"});
  check([&](Golden& g) { g.remove(post); }, {post, "lacks"});
  check([&](Golden& g) { g.tensors.push_back({"blocks.9.hook_resid_post", "F64", {1}, std::string(8, 0)}); },
        {"blocks.9.hook_resid_post", "none of this model's hooks"});
  check([&](Golden& g) { g.tensors.push_back({scores + ".norm", "F64", {1, length}, std::string(8 * length, 0)}); },
        {scores + ".norm"});

  // Metadata.
  for (const char* key : {"weights_sha256", "patch", "positions", "floor"})
    check([&](Golden& g) { g.metadata.erase(key); }, {key});
  for (const char* text : {"[\"a\"]", "[0.5]", "[-1]", "{}", "5", "null", "[[0]]", "[99999]", "[0, 0]",
                           "[1, 0]", "[0, 1, 2, 3, 4]", "[", "", "[18446744073709551615]"})
    check([&](Golden& g) { g.metadata["positions"] = text; }, {});
  for (const char* text : {"[]", "{}", "3", "null", "{\"logits\": 3}", "{\"logits\": {}}", "{", "",
                           "{\"logits\": {\"pool_rms\": \"a\", \"pool_row_rms\": 1, \"pool_max\": 1}}"})
    check([&](Golden& g) { g.metadata["floor"] = text; }, {"floor"});
  for (const char* key : {"pool_rms", "pool_row_rms", "pool_max", "scale"})
    for (const nlohmann::json& wrong : {nlohmann::json("0.1"), nlohmann::json(-1), nlohmann::json::array()})
      check([&](Golden& g) {
              nlohmann::json floor = nlohmann::json::parse(g.metadata["floor"].get<std::string>());
              floor["logits"][key] = wrong;
              g.metadata["floor"] = floor.dump();
            },
            {"logits", key});
  for (const size_t depth : {70, 200'000})
    for (const char* key : {"floor", "positions"})
      check([&](Golden& g) { g.metadata[key] = std::string(depth, '[') + std::string(depth, ']'); }, {"nested"});
  check([&](Golden& g) { g.metadata["floor"] = "{\"logits\": {\"pool_rms\": 1, \"pool_row_rms\": 1, \"pool_max\": 1}}"; }, {"floor"});
  check([&](Golden& g) { g.metadata["weights_sha256"] = "0"; }, {"weights"});
}
