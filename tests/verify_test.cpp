#include "sinkref/verify.h"

#include <unistd.h>

#include <bit>
#include <catch2/catch.hpp>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>
#include <set>

#include "checkpoint_builder.h"
#include "sinkref/error.h"
#include "verify/candidate.h"
#include "verify/difference.h"
#include "verify/hypotheses.h"

using namespace sinkref;
namespace fs = std::filesystem;

namespace {

const fs::path outputs = SINKREF_SOURCE_DIR "/reference_outputs";
const std::vector<int> tokens = {1, 5, 9, 33, 7, 7, 7, 7, 12, 44};

struct Trace {
  Trace(const Model& model, const std::string& globs, Softmax softmax = Softmax::standard,
        const Hooks<float>& changes = {}, const std::vector<int>& tokens = ::tokens,
        const std::vector<size_t>& positions = {}) {
    static int count = 0;
    path = fs::temp_directory_path() /
           ("sinkref_verify_" + std::to_string(::getpid()) + "_" + std::to_string(count++));
    const std::vector<Hook> chosen = select_hooks(globs, model.config().layers);
    RunOptions run;
    run.softmax = softmax;
    Forward<float> forward(model, run);
    std::vector<Sequence<float>> batch;
    batch.push_back(forward.start(tokens));
    Hooks<float> hooks = changes;
    TraceWriter<float> writer(path, true, model.config(), chosen, {tokens}, {}, positions);
    writer.attach(hooks);
    forward.run(batch, hooks);
    writer.commit();
  }
  ~Trace() { fs::remove(path); }
  TraceFile file() const { return TraceFile::open(path); }
  /// Overwrites element `i` of a tensor in the file.
  void set(const std::string& name, size_t i, float value) const {
    const TraceFile trace = file();
    std::fstream out(path, std::ios::in | std::ios::out | std::ios::binary);
    uint64_t header = 0;
    out.read(reinterpret_cast<char*>(&header), 8);
    // The tensor's place: its distance from "tokens", which a trace begins with.
    const std::ptrdiff_t offset = trace.tensor(name).data - trace.tensor("tokens").data;
    out.seekp(static_cast<std::streamoff>(8 + header) + offset +
              static_cast<std::streamoff>(i * sizeof(float)));
    out.write(reinterpret_cast<const char*>(&value), sizeof value);
  }
  float at(const std::string& name, size_t i) const {
    return static_cast<float>(file().values(name)[i]);
  }
  fs::path path;
};

VerifyResult verify(const Model& model, const Trace& trace) {
  return verify_candidate(model, trace.file(), {});
}

}  // namespace

TEST_CASE("verify: hook_index is the place in all_hooks, for every hook", "[verify]") {
  const std::vector<Hook> all = all_hooks(5);
  for (size_t i = 0; i < all.size(); ++i) CHECK(hook_index(all[i], 5) == i);
}

TEST_CASE("verify: ulps count fp32 numbers, across zero too", "[verify]") {
  const float infinity = std::numeric_limits<float>::infinity();
  CHECK(ulps_between(1.0f, 1.0f) == 0);
  CHECK(ulps_between(0.0f, -0.0f) == 0);
  CHECK(ulps_between(1.0f, std::nextafter(1.0f, 2.0f)) == 1);
  const float least = std::numeric_limits<float>::denorm_min();
  CHECK(ulps_between(-least, least) == 2);
  CHECK(std::isinf(ulps_between(std::nanf(""), 1.0f)));
  CHECK(ulps_between(std::numeric_limits<float>::max(), infinity) == 1);
}

TEST_CASE("verify: rounding to fp16 and bf16 is to nearest even, with subnormals", "[verify]") {
  CHECK(rounded(1.0 + 0x1p-11, NumberType::fp16) == 1.0);
  CHECK(rounded(1.0 + 0x1.8p-11, NumberType::fp16) == 1.0 + 0x1p-10);
  CHECK(rounded(1.0 + 0x1p-8, NumberType::bf16) == 1.0);
  CHECK(rounded(0x1p-24, NumberType::fp16) == 0x1p-24);
  CHECK(rounded(0x1p-26, NumberType::fp16) == 0);
  CHECK(rounded(-3.140625, NumberType::bf16) == -3.140625);
}

TEST_CASE("verify: our own fp32 run agrees, whatever is supplied, on every tiny model", "[verify]") {
  for (const char* name : {"tiny_llama1", "tiny_llama2", "tiny_llama3", "tiny_mistral"}) {
    const Model model = Model::open(outputs / name);
    for (const char* globs : {"*", "logits", "blocks.*.hook_resid_post", "blocks.1.attn.*"}) {
      const Trace trace(model, globs);
      const VerifyResult result = verify(model, trace);
      INFO(name << " " << globs);
      CHECK(result.agrees);
      CHECK_FALSE(result.tensors.empty());
    }
  }
}

TEST_CASE("verify: a change of 4 ulp in one element is found in bits and not claimed otherwise",
          "[verify]") {
  const Model model = Model::open(outputs / "tiny_llama3");
  const Trace ours(model, "*"), theirs(model, "*");
  const std::string name = "blocks.2.mlp.hook_post";
  const size_t width = model.config().intermediate_size, element = 5 * width + 17;
  float value = theirs.at(name, element);
  for (int i = 0; i < 4; ++i) value = std::nextafter(value, 10.0f);
  theirs.set(name, element, value);
  const VerifyResult exact = verify_traces(ours.file(), theirs.file(), {}, true);
  REQUIRE(exact.first);
  CHECK(exact.tensors[*exact.first].name == name);
  const TokenDifference& found = *exact.tensors[*exact.first].first_over();
  CHECK(found.token == 5);
  CHECK(found.index == std::vector<size_t>{0, 5, 17});
  CHECK(found.ulps == 4);
  CHECK(found.over == 1);
  CHECK(verify_traces(ours.file(), ours.file(), {}, true).agrees);
  CHECK(verify(model, theirs).agrees);  // below rounding
}

TEST_CASE("verify: one wrong value is found at its tensor, token and element, and nowhere after",
          "[verify]") {
  const Model model = Model::open(outputs / "tiny_llama3");
  Hooks<float> slip;
  slip.add({HookPoint::Z, 1}, [](const Activation<float>& a) { a.row(3)[6] += 0.25f; });
  const Trace trace(model, "*", Softmax::standard, slip);
  const VerifyResult result = verify(model, trace);
  REQUIRE(result.first);
  const TensorDifference& first = result.tensors[*result.first];
  CHECK(first.name == "blocks.1.attn.hook_z");
  CHECK(first.first_over()->token == 3);
  CHECK(first.first_over()->index == std::vector<size_t>{0, 3, 0, 6});
  size_t local = 0, propagated = 0;
  for (const TensorDifference& tensor : result.tensors) {
    local += tensor.tokens_over_local > 0;
    propagated += tensor.tokens_over_propagated > 0;
  }
  CHECK(local == 1);        // the slip itself
  CHECK(propagated > 10);   // and what it does to all that follows
  REQUIRE(result.diagnosis.size() == 1);
  CHECK(result.diagnosis[0].certainty == "none");
}

TEST_CASE("verify: NaN, missing, extra and misshapen tensors fail, and so does nothing to compare",
          "[verify]") {
  const Model model = Model::open(outputs / "tiny_llama3");
  const auto problem = [](const VerifyResult& result, const std::string& text) {
    CHECK_FALSE(result.agrees);
    REQUIRE_FALSE(result.problems.empty());
    CHECK(result.problems[0].find(text) != std::string::npos);
  };
  const Trace nan(model, "*");
  nan.set("blocks.1.hook_mlp_out", 70, std::nanf(""));
  const VerifyResult result = verify(model, nan);
  problem(result, "1 NaN");
  REQUIRE(result.first);
  CHECK(result.tensors[*result.first].name == "blocks.1.hook_mlp_out");

  const Trace holes(model, "blocks.0.hook_resid_post,blocks.2.hook_resid_post");
  problem(verify(model, holes), "missing tensor \"blocks.1.hook_resid_post\"");
  VerifyOptions required;
  required.require = "logits";
  problem(verify_candidate(model, Trace(model, "hook_embed").file(), required),
          "missing tensor \"logits\"");
  const Model other = Model::open(outputs / "tiny_llama1");
  problem(verify(other, Trace(model, "blocks.0.mlp.hook_pre")), "misshapen");
  const Trace a(model, "logits"), b(model, "hook_embed");
  problem(verify_traces(a.file(), b.file(), {}, false), "extra tensor");
}

TEST_CASE("verify: a trace of some positions is held against the truth at these", "[verify]") {
  for (const char* name : {"tiny_llama1", "tiny_llama2", "tiny_llama3", "tiny_mistral"}) {
    const Model model = Model::open(outputs / name);
    for (const char* globs : {"*", "logits", "blocks.*.hook_resid_post", "blocks.1.attn.*"})
      for (const std::vector<size_t>& positions :
           {std::vector<size_t>{7, 0, 5}, std::vector<size_t>{9}, std::vector<size_t>{9, 8, 7, 6, 5, 4, 3, 2, 1, 0}}) {
        const Trace trace(model, globs, Softmax::standard, {}, tokens, positions);
        const VerifyResult result = verify(model, trace);
        INFO(name << " " << globs << " " << positions.size() << " positions");
        CHECK(result.agrees);
        REQUIRE_FALSE(result.tensors.empty());
        for (const TensorDifference& tensor : result.tensors) {
          std::set<size_t> compared;
          for (const TokenDifference& token : tensor.tokens) compared.insert(token.token);
          CHECK(compared == std::set<size_t>(positions.begin(), positions.end()));
          CHECK(tensor.tokens.size() == positions.size());
        }
      }
  }
}

TEST_CASE("verify: of a trace of some positions, a fault is found at the first of them that it reaches", "[verify]") {
  const Model model = Model::open(outputs / "tiny_llama3");
  Hooks<float> slip;
  slip.add({HookPoint::Z, 1}, [](const Activation<float>& a) { a.row(3)[6] += 0.25f; });
  const VerifyResult seen = verify(model, Trace(model, "*", Softmax::standard, slip, tokens, {8, 3}));
  REQUIRE(seen.first);
  CHECK(seen.tensors[*seen.first].name == "blocks.1.attn.hook_z");
  CHECK(seen.tensors[*seen.first].first_over()->token == 3);
  CHECK(seen.tensors[*seen.first].first_over()->index == std::vector<size_t>{0, 1, 0, 6});
  // The slip itself is not in this trace: the first that shows it is the next block's attention.
  const VerifyResult hidden = verify(model, Trace(model, "*", Softmax::standard, slip, tokens, {8, 2}));
  REQUIRE(hidden.first);
  CHECK(hidden.tensors[*hidden.first].name == "blocks.2.attn.hook_attn_scores");
  CHECK(hidden.tensors[*hidden.first].first_over()->token == 8);
  const VerifyResult fault = verify(model, Trace(model, "*", Softmax::one, {}, tokens, {9, 2, 5}));
  REQUIRE(fault.diagnosis.size() == 1);
  CHECK(fault.diagnosis[0].fault == "softmax_one");
  CHECK(fault.diagnosis[0].certainty == "certain");
}

TEST_CASE("verify: positions that a trace cannot hold are refused, and other ones are not compared", "[verify]") {
  const Model model = Model::open(outputs / "tiny_llama3");
  const auto refused = [&](int position, const std::string& found) {
    const Trace trace(model, "hook_embed", Softmax::standard, {}, tokens, {4, 2});
    trace.set("positions", 2, std::bit_cast<float>(position));  // the lower half of the second
    CHECK_THROWS_WITH(verify(model, trace), Catch::Contains("tensor \"positions\" holds " + found +
                                                            ", expected positions from 0 to 9, each once"));
  };
  refused(10, "10");
  refused(4, "4 twice");
  const Trace a(model, "hook_embed", Softmax::standard, {}, tokens, {4, 2}),
      b(model, "hook_embed", Softmax::standard, {}, tokens, {4, 3});
  CHECK(verify_traces(a.file(), a.file(), {}, true).agrees);
  const VerifyResult other = verify_traces(a.file(), b.file(), {}, true);
  CHECK_FALSE(other.agrees);
  CHECK(other.problems.at(0).find("other positions") != std::string::npos);
  const Trace all(model, "hook_embed");
  CHECK_FALSE(verify_traces(a.file(), all.file(), {}, true).agrees);
  b.set("hook_embed", model.config().hidden_size + 1, 7.0f);
  const VerifyResult bits = verify_traces(Trace(model, "hook_embed", Softmax::standard, {}, tokens, {4, 3}).file(),
                                          b.file(), {}, true);
  REQUIRE(bits.first);
  CHECK(bits.tensors[*bits.first].first_over()->token == 3);
  CHECK(bits.tensors[*bits.first].first_over()->index == std::vector<size_t>{0, 1, 1});
}

TEST_CASE("verify: one step that is not supplied is allowed its rounding, and blamed on nothing",
          "[verify]") {
  const Model model = Model::open(outputs / "tiny_llama2");
  std::string all_but_one = "hook_embed,blocks.1.*,blocks.2.*,ln_final.*,logits";
  for (Hook hook : all_hooks(1))
    if (hook.point > HookPoint::Embed && hook.point < HookPoint::ResidPost)
      all_but_one += "," + hook_name(hook);
  VerifyOptions options;
  options.require = "logits";
  const Trace trace(model, all_but_one);
  REQUIRE_FALSE(trace.file().has("blocks.0.hook_resid_post"));
  const VerifyResult result = verify_candidate(model, trace.file(), options);
  CHECK(result.agrees);
  CHECK(result.diagnosis.empty());
}

TEST_CASE("verify: a plain loop over a run's values, whose errors add up, is no fault", "[verify]") {
  const Model model = Model::open(outputs / "tiny_llama1");
  const ModelConfig& c = model.config();
  std::vector<int> run(c.max_positions, 7);
  run[0] = 1;
  Matrix<float> v(run.size(), c.kv_heads * c.head_dim), z(run.size(), c.heads * c.head_dim);
  Hooks<float> plain;
  plain.add({HookPoint::V, 0}, [&](const Activation<float>& a) {
    for (size_t r = 0; r < a.rows.size(); ++r)
      std::copy_n(a.row(r), a.width, v.row(a.rows[r].position));
  });
  plain.add({HookPoint::Pattern, 0}, [&](const Activation<float>& a) {
    for (size_t r = 0; r < a.rows.size(); ++r)
      for (size_t i = 0; i < c.head_dim; ++i) {
        float& sum = z.row(a.rows[r].position)[a.head * c.head_dim + i];
        sum = 0;
        for (size_t k = 0; k <= a.rows[r].position; ++k)
          sum += a.row(r)[k] * v.row(k)[a.head / (c.heads / c.kv_heads) * c.head_dim + i];
      }
  });
  plain.add({HookPoint::Z, 0}, [&](const Activation<float>& a) {
    for (size_t r = 0; r < a.rows.size(); ++r)
      std::copy_n(z.row(a.rows[r].position), a.width, a.row(r));
  });
  const Trace theirs(model, "blocks.0.attn.*", Softmax::standard, plain, run);
  const VerifyResult result = verify(model, theirs);
  for (const TensorDifference& tensor : result.tensors)
    if (tensor.hook.point == HookPoint::Z)
      CHECK(tensor.worst().local_ratio() <= (1 + 1e-6) / budget_factor);
  CHECK(result.agrees);
}

TEST_CASE("verify: softmax_1 is named, with certainty", "[verify]") {
  const Model model = Model::open(outputs / "tiny_llama1");
  const VerifyResult result = verify(model, Trace(model, "*", Softmax::one));
  REQUIRE(result.diagnosis.size() == 1);
  CHECK(result.diagnosis[0].fault == "softmax_one");
  CHECK(result.diagnosis[0].certainty == "certain");
}

TEST_CASE("verify: a written budget reads back, overrides, and is refused when wrong", "[verify]") {
  const Model model = Model::open(outputs / "tiny_llama3");
  const Trace trace(model, "*");  // hook_resid_pre's local budget is 0: the same numbers again
  const VerifyResult result = verify(model, trace);
  CHECK(result.next.empty());
  const fs::path file = trace.path.string() + ".json";
  const auto write = [&](const std::string& text) { std::ofstream(file) << text; };
  write(result.budget.text({{"program", "test"}}));
  VerifyOptions options;
  options.budget = Budget::read(file, model.config().layers);
  CHECK(verify_candidate(model, trace.file(), options).agrees);
  write(R"({"tensors": {"log*": {"local": 1e-12, "propagated": [[0, 1e-12], [4, 1]]}}})");
  options.budget = Budget::read(file, model.config().layers);
  CHECK_FALSE(verify_candidate(model, trace.file(), options).agrees);
  for (const char* wrong : {"{}", R"({"tensors": {"logit": {"local": 1}}})",
                            R"({"tensors": {"logits": {"locale": 1}}})",
                            R"({"tensors": {"logits": {"local": -1}}})",
                            R"({"tensors": {"logits": {"local": [[3, 1]]}}})",
                            R"({"tensors": {"logits": {"local": 1}}, "factor": 2})"}) {
    write(wrong);
    INFO(wrong);
    CHECK_THROWS_AS(Budget::read(file, model.config().layers), InputError);
  }
  fs::remove(file);
}

TEST_CASE("verify: a candidate's tokens, lengths and metadata are input too", "[verify]") {
  const Model model = Model::open(outputs / "tiny_llama3");
  const TempDir folder;
  const auto ids = [](const std::vector<int64_t>& values) {
    return std::string(reinterpret_cast<const char*>(values.data()), 8 * values.size());
  };
  const auto refused = [&](const std::vector<BuiltTensor>& tensors, const nlohmann::json& metadata = nlohmann::json::object()) {
    nlohmann::json header = {{"__metadata__", metadata}};
    std::string data;
    for (const BuiltTensor& t : tensors) {
      header[t.name] = {{"dtype", t.dtype}, {"shape", t.shape},
                        {"data_offsets", {data.size(), data.size() + t.bytes.size()}}};
      data += t.bytes;
    }
    const fs::path path = folder.write("c.safetensors", safetensors_file(header.dump(), data));
    INFO(header.dump().substr(0, 300));
    CHECK_THROWS_AS(verify_candidate(model, TraceFile::open(path), {}), InputError);
  };
  for (const std::vector<uint64_t>& shape :
       std::vector<std::vector<uint64_t>>{{}, {0}, {3}, {1, 0}, {0, 3}, {1, 1, 3}}) {
    uint64_t n = 1;
    for (const uint64_t extent : shape) n *= extent;
    refused({{"tokens", "I64", shape, ids(std::vector<int64_t>(n, 1))}});
  }
  for (const int64_t id : {int64_t{-1}, int64_t{512}, int64_t{1} << 40})
    refused({{"tokens", "I64", {1, 2}, ids({1, id})}});
  refused({{"tokens", "U8", {1, 2}, std::string(2, 1)}});
  for (const std::vector<int64_t>& lengths : std::vector<std::vector<int64_t>>{{}, {0}, {3}, {-1}, {1, 1}})
    refused({{"tokens", "I64", {1, 2}, ids({1, 1})}, {"lengths", "I64", {lengths.size()}, ids(lengths)}});
  const std::vector<BuiltTensor> whole = {{"tokens", "I64", {1, 1}, ids({1})}, f32("hook_embed", {1, 1, 64})};
  refused(whole, {{"weights_sha256", "a"}, {"blocks_run", "two"}});
  refused(whole, {{"weights_sha256", "a"}, {"blocks_run", "-1"}});
  refused(whole, {{"weights_sha256", "a"}, {"blocks_run", "99999999999999999999999"}});
  refused(whole, {{"dtype", "int3"}});
  refused(whole, {{"hooks", "no such hook"}});
  refused(whole, {{"hooks", std::string(1'000'000, '*')}});
  refused(whole, {{"hooks", 3}});
}

TEST_CASE("verify: two traces of other lengths or other frequencies do not agree", "[verify]") {
  const TempDir folder;
  const auto ids = [](const std::vector<int64_t>& values) {
    return std::string(reinterpret_cast<const char*>(values.data()), 8 * values.size());
  };
  const auto trace = [&](const char* name, const std::vector<int64_t>& lengths, const std::vector<float>& frequencies,
                         const std::string& config) {
    std::vector<BuiltTensor> tensors = {{"tokens", "I64", {2, 3}, ids({1, 2, 3, 4, 5, -1})}, f32("hook_embed", {2, 3, 4})};
    if (!lengths.empty()) tensors.push_back({"lengths", "I64", {lengths.size()}, ids(lengths)});
    if (!frequencies.empty()) tensors.push_back({"rope.inv_freq", "F32", {frequencies.size()}, raw_floats(frequencies)});
    std::string file = safetensors_file(tensors);
    if (!config.empty()) {
      uint64_t size = 0;
      std::memcpy(&size, file.data(), sizeof size);
      nlohmann::json header = nlohmann::json::parse(file.substr(8, size));
      header["__metadata__"]["config"] = config;
      file = safetensors_file(header.dump(), file.substr(8 + size));
    }
    return TraceFile::open(folder.write(name, file));
  };
  const auto agrees = [&](const TraceFile& a, const TraceFile& b, bool exact) {
    Budget budget;
    budget.set("*", {{{0, 1}}, {{0, 1}}});
    return verify_traces(a, b, budget, exact).agrees;
  };
  const std::string config = R"({"inv_freq": [1, 0.5], "a": 1})";
  const TraceFile whole = trace("a", {3, 2}, {1, 0.5f}, config);
  CHECK(agrees(whole, whole, true));
  for (const bool exact : {false, true}) {
    for (const std::vector<int64_t>& lengths : std::vector<std::vector<int64_t>>{{}, {3, 3}, {2, 2}, {3, 1}})
      CHECK_FALSE(agrees(whole, trace("b", lengths, {1, 0.5f}, config), exact));
    CHECK(agrees(trace("c", {3, 3}, {}, ""), trace("d", {}, {}, ""), exact));
    // One that lacks them says nothing of them; with a budget they are allowed to be near.
    CHECK(agrees(whole, trace("b", {3, 2}, {}, ""), exact));
    CHECK(agrees(whole, trace("b", {3, 2}, {1, 0.25f}, config), exact) == !exact);
    CHECK(agrees(whole, trace("b", {3, 2}, {1, 0.5f, 0.25f}, config), exact) == !exact);
    CHECK(agrees(whole, trace("b", {3, 2}, {1, 0.5f}, R"({"inv_freq": [1, 0.25], "a": 1})"), exact) == !exact);
    for (const char* other : {R"({"inv_freq": [1, 0.5], "a": 2})", R"({"a": 1})", "[1]", "words", ""})
      CHECK(agrees(whole, trace("b", {3, 2}, {1, 0.5f}, other), exact));
    CHECK(agrees(whole, trace("b", {3, 2}, {1, 0.5f}, std::string(200'000, '[')), exact));
  }
}
