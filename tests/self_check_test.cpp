// verify --self and the fingerprint: one set of bits on every axis of this machine, and a control
// that is caught when it should be, and only then.

#include "verify/self_check.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>
#include <set>

#include "base/json_file.h"
#include "sinkref/error.h"
#include "model/fingerprint.h"
#include "sinkref/forward.h"

using namespace sinkref;

namespace {

const std::string outputs = SINKREF_SOURCE_DIR "/reference_outputs/";
Progress quiet;

std::vector<int> tokens_up_to(int n) {
  std::vector<int> tokens;
  for (int i = 0; i < n; ++i) tokens.push_back(i < n / 2 ? 1 + 7 * i : 77);
  return tokens;
}

template <class T>
std::string fingerprint_of(const Model& model, const std::vector<std::vector<int>>& batch,
                           RunOptions options) {
  Forward<T> forward(model, options);
  std::vector<Sequence<T>> sequences;
  for (const std::vector<int>& tokens : batch) sequences.push_back(forward.start(tokens));
  Fingerprint<T> fingerprint;
  Hooks<T> hooks;
  fingerprint.attach(hooks);
  forward.run(sequences, hooks);
  return fingerprint.text(model);
}

}  // namespace

TEST_CASE("self check: every axis has the same bits, and one ulp in one weight is caught", "[self]") {
  for (const char* name : {"tiny_llama1", "tiny_llama3", "tiny_mistral"}) {
    const Model model = Model::open(outputs + name);
    const std::vector<int> tokens = tokens_up_to(70);
    const SelfCheck check = check_self(model, tokens, nullptr, quiet);
    INFO(name << ": " << check.control.differing << " rows of the control differ");
    CHECK(check.agrees());
    std::set<std::string> axes;
    for (const SelfCheckAxis& axis : check.axes) {
      INFO(axis.axis << " " << axis.setting << " first " << axis.first);
      CHECK(axis.differing == 0);
      // Without attention scores and patterns; half of the tokens where the others are cached.
      const size_t hooks = all_hooks(model.config().layers).size() - 2 * model.config().layers;
      const bool half = axis.axis == "cache";
      if (axis.axis != "hooks") CHECK(axis.compared == hooks * tokens.size() / (half ? 2 : 1));
      axes.insert(axis.axis);
    }
    CHECK(axes == std::set<std::string>{"kernel", "threads", "chunk", "decode", "batch", "cache",
                                        "hooks"});
    CHECK(check.control.first.starts_with("blocks.0.attn.hook_v"));
  }
}

TEST_CASE("self check: a weight that no token reads is not caught, and that is no agreement",
          "[self]") {
  const Model model = Model::open(outputs + "tiny_llama1");
  const WeightIndex unread = {"model.embed_tokens.weight", 60 * model.config().hidden_size};
  const SelfCheck check = check_self(model, tokens_up_to(10), &unread, quiet);
  CHECK(check.control.differing == 0);
  CHECK_FALSE(check.agrees());
  const WeightIndex other = parse_weight("2.mlp.down_proj[5]", model);
  CHECK(other.tensor == "model.layers.2.mlp.down_proj.weight");
  CHECK(other.index == 5);
}

TEST_CASE("self check: a weight that does not exist is refused by name", "[self]") {
  const Model model = Model::open(outputs + "tiny_llama1");
  for (const char* bad : {"", "0.mlp.up_proj", "0.mlp.up_proj[]", "0.mlp.up_proj[-1]", "[3]",
                          "0.mlp.up_proj[3", "0.mlp.up_proj[3]x", "99.mlp.up_proj[3]", "0.nope[0]",
                          "0.mlp.up_proj[99999999]", "lm_head[0]"})
    CHECK_THROWS_AS(parse_weight(bad, model), InputError);
  CHECK(parse_weight("model.norm.weight[3]", model).index == 3);
}

TEST_CASE("fingerprint: the committed ones are those of this build; another is a visible decision",
          "[self][fingerprint]") {
  const nlohmann::json stored = read_json_file(outputs + "fingerprints.json");
  REQUIRE(stored.at("arithmetic_version") == arithmetic_version);
  size_t tiny = 0;
  for (const nlohmann::json& run : stored.at("runs")) {
    const std::string name = run.at("model");
    const std::string path = name.ends_with(".gguf") ? SINKREF_SOURCE_DIR "/models/" + name
                                                     : outputs + name;
    INFO(name << ": if the arithmetic was changed on purpose, raise arithmetic_version, write the "
                 "reason into reference_outputs/README.md and run tools/reference/make_fingerprints.py");
    CHECK(fingerprint_of<float>(Model::open(path), run.at("tokens"), {}) == run.at("fingerprint"));
    tiny += !name.ends_with(".gguf");
  }
  CHECK(tiny >= 4);
}

TEST_CASE("fingerprint: chunk and kernel leave it alone; token, softmax and precision change it",
          "[self][fingerprint]") {
  const Model model = Model::open(outputs + "tiny_llama2");
  const std::vector<std::vector<int>> batch = {tokens_up_to(20), {5, 6, 7}};
  const std::string plain = fingerprint_of<float>(model, batch, {});
  CHECK(plain.starts_with(std::to_string(arithmetic_version) + "-"));
  RunOptions options;
  options.chunk = 3;
  options.kernel = "spec";
  CHECK(fingerprint_of<float>(model, batch, options) == plain);
  CHECK(fingerprint_of<double>(model, batch, {}) != plain);
  options.softmax = Softmax::one;
  CHECK(fingerprint_of<float>(model, batch, options) != plain);
  CHECK(fingerprint_of<float>(model, {batch[0], {5, 6, 8}}, {}) != plain);
  CHECK(fingerprint_of<float>(model, {batch[0], {5, 6}}, {}) != plain);
}
