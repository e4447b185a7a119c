#include "verify/golden.h"

#include <catch2/catch.hpp>
#include <filesystem>
#include <limits>

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
