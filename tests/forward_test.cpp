// The invariants of the forward pass, by whole traces and bit for bit: nothing but the model and
// the tokens may have a say in the result.

#include "arithmetic/layers.h"
#include "sinkref/forward.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <limits>
#include <map>

#include "base/threads.h"
#include "sinkref/error.h"
#include "sinkref/interventions.h"

using namespace sinkref;

namespace {

const std::string outputs = SINKREF_SOURCE_DIR "/reference_outputs/";
const char* const tiny_models[] = {"tiny_llama1", "tiny_llama2", "tiny_llama3", "tiny_mistral"};

/// (hook, head, position) -> values of one sequence; unseen keys left out.
using Trace = std::map<std::tuple<std::string, size_t, size_t>, std::vector<float>>;

bool same_bits(const Trace& a, const Trace& b) {
  if (a.size() != b.size() || a.empty()) return false;
  for (const auto& [key, values] : a) {
    const auto found = b.find(key);
    if (found == b.end() || found->second.size() != values.size() ||
        std::memcmp(values.data(), found->second.data(), values.size() * sizeof(float)) != 0)
      return false;
  }
  return true;
}

struct Setting {
  std::string kernel = "auto";
  size_t chunk = 512;
  size_t threads = 2;
  size_t decode_from = SIZE_MAX;  ///< tokens from here on are fed one at a time
  std::vector<Neurons> patch;
};

/// The traces of a batch, all hooks.
std::vector<Trace> run(const Model& model, const std::vector<std::vector<int>>& batch,
                       const Setting& setting) {
  set_thread_count(setting.threads);
  std::vector<Trace> traces(batch.size());
  Hooks<float> hooks;
  add_patch(setting.patch, hooks);
  for (Hook hook : all_hooks(model.config().layers))
    hooks.add(hook, [&traces](const Activation<float>& a) {
      for (size_t r = 0; r < a.rows.size(); ++r) {
        const size_t position = a.rows[r].position;
        const bool attention = a.hook.point == HookPoint::AttnScores ||
                               a.hook.point == HookPoint::Pattern;
        const size_t width = attention ? position + 1 : a.width;
        traces[a.rows[r].sequence][{hook_name(a.hook), a.head, position}] = {a.row(r),
                                                                             a.row(r) + width};
      }
    });
  RunOptions options;
  options.kernel = setting.kernel;
  options.chunk = setting.chunk;
  Forward<float> forward(model, options);
  std::vector<Sequence<float>> sequences;
  for (const std::vector<int>& tokens : batch) sequences.push_back(forward.start(tokens));
  std::vector<int> later;
  if (setting.decode_from < batch[0].size()) {
    std::vector<int>& pending = sequences[0].pending;
    later.assign(pending.begin() + static_cast<long>(setting.decode_from), pending.end());
    pending.resize(setting.decode_from);
  }
  forward.run(sequences, hooks);
  for (int token : later) {
    sequences[0].pending = {token};
    forward.run(sequences, hooks, false);
  }
  hooks.require_all_called();
  return traces;
}

std::vector<int> some_tokens(const Model& model, size_t n, unsigned seed) {
  std::vector<int> tokens;
  for (size_t i = 0; i < n; ++i)
    tokens.push_back(static_cast<int>((seed * 7919 + i * i * 31 + i * 17) %
                                      model.config().vocab_size));
  // A repeated run, the input this project is about.
  for (size_t i = n / 2; i < n * 3 / 4; ++i) tokens[i] = tokens[n / 2];
  return tokens;
}

}  // namespace

TEST_CASE("argmax is the first of the largest, and NaN never wins", "[forward]") {
  const float inf = std::numeric_limits<float>::infinity(), nan = std::nanf("");
  for (size_t n : {1, 2, 15, 16, 17, 100}) {
    for (size_t at = 0; at < n; ++at) {
      std::vector<float> values(n, -3);
      values[at] = 2;
      values[n - 1] = std::max(values[n - 1], 2.0f);  // a tie, unless it is `at` itself
      CHECK(argmax<float>(values) == at);
      std::vector<float> holes(n, nan);
      holes[at] = -inf;
      CHECK(argmax<float>(holes) == at);
    }
    CHECK(argmax<float>(std::vector<float>(n, nan)) == 0);
  }
  CHECK(argmax<double>(std::vector<double>{-0.0, 0.0}) == 0);
}

TEST_CASE("forward: kernels, threads, chunks and decode give the same bits in every tensor",
          "[forward]") {
  for (const char* name : tiny_models) {
    const Model model = Model::open(outputs + name);
    const std::vector<std::vector<int>> batch = {some_tokens(model, 70, 1)};
    const Trace expected = run(model, batch, {})[0];
    std::vector<Setting> settings;
    for (const std::string& kernel : available_kernels())
      for (size_t threads : {1, 2, 3, 7})
        for (size_t chunk : {1, 7, 64, 512}) settings.push_back({kernel, chunk, threads, SIZE_MAX, {}});
    for (size_t from : {1, 2, 33, 69}) settings.push_back({"auto", 512, 2, from, {}});
    for (const Setting& s : settings) {
      INFO(name << " kernel " << s.kernel << " chunk " << s.chunk << " threads " << s.threads
                << " decode from " << s.decode_from);
      REQUIRE(same_bits(run(model, batch, s)[0], expected));
    }
  }
}

TEST_CASE("forward: the comparison of traces sees one ulp in one value, and an empty trace",
          "[forward]") {
  const Model model = Model::open(outputs + "tiny_llama1");
  const std::vector<std::vector<int>> batch = {some_tokens(model, 20, 1)};
  const Trace expected = run(model, batch, {})[0];
  Trace changed = expected;
  float& value = changed.begin()->second[0];
  value = std::nextafter(value, 1e30f);
  CHECK_FALSE(same_bits(changed, expected));
  CHECK_FALSE(same_bits({}, {}));
}

TEST_CASE("forward: a sequence has the same bits alone and in a batch of unequal lengths",
          "[forward]") {
  for (const char* name : tiny_models) {
    const Model model = Model::open(outputs + name);
    const std::vector<std::vector<int>> batch = {
        some_tokens(model, 40, 1), some_tokens(model, 3, 2), some_tokens(model, 65, 3),
        some_tokens(model, 1, 4)};
    for (size_t chunk : {5, 512}) {
      const std::vector<Trace> together = run(model, batch, {"auto", chunk, 2, SIZE_MAX, {}});
      for (size_t i = 0; i < batch.size(); ++i) {
        INFO(name << " sequence " << i << " chunk " << chunk);
        REQUIRE(same_bits(run(model, {batch[i]}, {})[0], together[i]));
      }
    }
  }
}

TEST_CASE("forward: changing a token leaves every earlier position's bits unchanged",
          "[forward]") {
  const Model model = Model::open(outputs + "tiny_mistral");
  std::vector<int> tokens = some_tokens(model, 40, 5);
  const Trace before = run(model, {tokens}, {})[0];
  tokens[25] = (tokens[25] + 1) % static_cast<int>(model.config().vocab_size);
  const Trace after = run(model, {tokens}, {})[0];
  size_t differing = 0;
  for (const auto& [key, values] : before) {
    const bool same = values == after.at(key);
    if (std::get<2>(key) < 25) REQUIRE(same);
    differing += !same;
  }
  CHECK(differing > 0);
}

TEST_CASE("forward: a prefix kept in the cache gives the bits of running it again", "[forward]") {
  const Model model = Model::open(outputs + "tiny_llama2");
  Forward<float> forward(model, {});
  Hooks<float> none;
  const std::vector<int> tokens = some_tokens(model, 50, 6);
  std::vector<Sequence<float>> whole, reused;
  whole.push_back(forward.start(tokens));
  const Matrix<float> expected = forward.run(whole, none);
  reused.push_back(forward.start(some_tokens(model, 30, 7)));
  reused[0].pending.assign(tokens.begin(), tokens.begin() + 20);
  reused[0].pending.push_back(1);  // a continuation that is thrown away
  forward.run(reused, none);
  reused[0].cache.length = 20;
  reused[0].pending.assign(tokens.begin() + 20, tokens.end());
  const Matrix<float> logits = forward.run(reused, none);
  REQUIRE(std::memcmp(logits.values.data(), expected.values.data(),
                      expected.values.size() * sizeof(float)) == 0);
}

TEST_CASE("forward: without a prefix every repeat of a token has the lone token's values, to the "
          "rounding of its position",
          "[forward]") {
  // Theorem 4.1's limit case: attention over equal values is that value, whatever the weights.
  const Model model = Model::open(outputs + "tiny_llama1");
  const Trace trace = run(model, {std::vector<int>(60, 9)}, {})[0];
  const std::vector<float>& lone = trace.at({"blocks.0.hook_resid_mid", 0, 0});
  for (size_t position = 1; position < 60; ++position) {
    const std::vector<float>& repeat = trace.at({"blocks.0.hook_resid_mid", 0, position});
    double difference = 0, norm = 0;
    for (size_t i = 0; i < lone.size(); ++i) {
      difference += std::pow(double(repeat[i]) - double(lone[i]), 2);
      norm += double(lone[i]) * double(lone[i]);
    }
    // Softmax weights sum to 1 within 60 roundings, and so does their sum of equal values.
    REQUIRE(std::sqrt(difference / norm) < 120 * std::ldexp(1.0, -24));
  }
}

TEST_CASE("patch: pins from position 1 on, in every chunk and in decode, alone and in a batch",
          "[patch]") {
  const Model model = Model::open(outputs + "tiny_llama1");
  const std::vector<int> tokens = some_tokens(model, 30, 8);
  const std::vector<Neurons> patch = parse_neurons("1:17,3", "--patch", model.config());
  const Trace plain = run(model, {tokens}, {})[0];
  const Trace patched = run(model, {tokens}, {"auto", 512, 2, SIZE_MAX, patch})[0];
  const std::string up = "blocks.1.mlp.hook_pre_linear";
  for (size_t neuron : {17, 3}) {
    CHECK(patched.at({up, 0, 0})[neuron] == plain.at({up, 0, 0})[neuron]);
    for (size_t p = 1; p < tokens.size(); ++p)
      REQUIRE(patched.at({up, 0, p})[neuron] == plain.at({up, 0, 1})[neuron]);
  }
  CHECK_FALSE(same_bits(plain, patched));
  for (size_t chunk : {1, 2, 7})
    REQUIRE(same_bits(run(model, {tokens}, {"auto", chunk, 1, SIZE_MAX, patch})[0], patched));
  for (size_t from : {2, 15})
    REQUIRE(same_bits(run(model, {tokens}, {"auto", 512, 1, from, patch})[0], patched));
  const std::vector<Trace> batch =
      run(model, {some_tokens(model, 5, 9), tokens}, {"auto", 4, 2, SIZE_MAX, patch});
  REQUIRE(same_bits(batch[1], patched));
}

TEST_CASE("ablation: the neuron's output is zero and the rest of the layer unchanged", "[patch]") {
  const Model model = Model::open(outputs + "tiny_llama1");
  std::vector<float> plain, ablated;
  for (auto* into : {&plain, &ablated}) {
    Forward<float> forward(model, {});
    Hooks<float> hooks;
    if (into == &ablated) add_ablation({{1, {17}}}, hooks);
    hooks.add({HookPoint::Post, 1},
              [into](const Activation<float>& a) { into->assign(a.row(0), a.row(0) + a.width); });
    std::vector<Sequence<float>> batch;
    batch.push_back(forward.start({5}));
    forward.run(batch, hooks);
  }
  CHECK(plain[17] != 0);
  CHECK(ablated[17] == 0);
  plain[17] = 0;
  CHECK(plain == ablated);
}

TEST_CASE("forward: sequences that share their beginnings have the logits of whole ones, bit for bit", "[forward]") {
  for (const char* name : {"tiny_llama3", "tiny_mistral"}) {  // GQA; a sliding window
    const Model model = Model::open(outputs + name);
    const auto token = [](size_t i) { return static_cast<int>(i * 37 % 200 + 1); };
    // Positions at which a line of four parts begins: in a panel's middle, at its edge, just behind it.
    for (const std::vector<size_t>& begins : {std::vector<size_t>{0, 5, 31, 40}, {0, 32, 33, 70}, {0, 2, 64, 95}})
      for (bool patched : {false, true})
        for (size_t chunk : {size_t{1}, size_t{7}, size_t{512}}) {
          RunOptions options;
          options.chunk = chunk;
          Forward<float> forward(model, options);
          const size_t end = begins.back() + 9;
          std::vector<int> tokens(end);
          for (size_t i = 0; i < end; ++i) tokens[i] = token(i);
          const auto logits_of = [&](std::vector<Sequence<float>>& batch) {
            std::vector<std::vector<float>> rows(end);
            Hooks<float> hooks;
            if (patched) add_patch(std::vector<Neurons>{{0, {3, 17}}}, hooks);
            hooks.add({HookPoint::Logits, 0}, [&](const Activation<float>& a) {
              for (size_t r = 0; r < a.rows.size(); ++r)
                rows[a.rows[r].position].assign(a.row(r), a.row(r) + a.width);
            });
            forward.run(batch, hooks);
            return rows;
          };
          std::vector<Sequence<float>> plain;
          plain.push_back(forward.start(tokens));
          const auto expected = logits_of(plain);
          std::vector<Sequence<float>> line;
          line.reserve(begins.size());
          for (size_t i = 0; i < begins.size(); ++i) {
            const size_t to = i + 1 < begins.size() ? begins[i + 1] : end;
            line.push_back({plain[0].cache.after(begins[i], to),
                            {tokens.begin() + long(begins[i]), tokens.begin() + long(to)}, 0,
                            i == 0 ? nullptr : &line[i - 1]});
          }
          INFO(name << " from " << begins[1] << ", chunk " << chunk << (patched ? ", patched" : ""));
          CHECK(logits_of(line) == expected);
          // What follows the line, brought together, is what follows the whole.
          std::vector<Sequence<float>> next;
          next.push_back(whole(line.back()));
          plain[0].pending = next[0].pending = {7};
          Hooks<float> none;
          CHECK(forward.run(next, none).values == forward.run(plain, none).values);
        }
  }
}

TEST_CASE("forward: a parent that is not run before its child is refused", "[forward]") {
  const Model model = Model::open(outputs + "tiny_llama2");
  Forward<float> forward(model, {});
  std::vector<Sequence<float>> batch;
  batch.reserve(2);
  const Sequence<float> first = forward.start({1, 2, 3});
  batch.push_back({first.cache.after(3, 4), {4}, 0, nullptr});
  batch.push_back(first);
  batch[0].parent = &batch[1];
  Hooks<float> none;
  CHECK_THROWS_AS(forward.run(batch, none), std::logic_error);
}

TEST_CASE("all_finite finds the one that is not, wherever it lies", "[forward]") {
  for (size_t cols : {1, 15, 16, 17, 40})
    for (size_t at = 0; at < 3 * cols; ++at)
      for (float odd : {std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity(),
                        std::numeric_limits<float>::quiet_NaN()}) {
        Matrix<float> x(3, cols);
        std::fill(x.values.begin(), x.values.end(), -std::numeric_limits<float>::max());
        REQUIRE(all_finite(x));
        x.values[at] = odd;
        REQUIRE_FALSE(all_finite(x));
      }
}

TEST_CASE("hooks: a replaced activation is what the next layer sees", "[forward]") {
  const Model model = Model::open(outputs + "tiny_llama2");
  const auto logits_with = [&](float value) {
    Forward<float> forward(model, {});
    Hooks<float> hooks;
    hooks.add({HookPoint::ResidPost, model.config().layers - 1}, [value](const auto& a) {
      for (size_t r = 0; r < a.rows.size(); ++r) std::fill_n(a.row(r), a.width, value);
    });
    std::vector<Sequence<float>> batch;
    batch.push_back(forward.start({1, 2, 3}));
    return forward.run(batch, hooks).values;
  };
  const auto one = logits_with(1.0f);
  CHECK(one == logits_with(1.0f));
  CHECK(one != logits_with(-1.0f));
}

TEST_CASE("hooks: all of them in causal order, and an unknown one names the closest", "[hooks]") {
  const std::vector<Hook> hooks = all_hooks(2);
  REQUIRE(hooks.size() == 1 + 2 * 20 + 3);
  CHECK(hook_name(hooks.front()) == "hook_embed");
  CHECK(hook_name(hooks[1]) == "blocks.0.hook_resid_pre");
  CHECK(hook_name(hooks[20]) == "blocks.0.hook_resid_post");
  CHECK(hook_name(hooks.back()) == "logits");
  CHECK(select_hooks("blocks.?.hook_resid_*", 2).size() == 6);
  CHECK(select_hooks("logits,blocks.1.attn.hook_q", 2).size() == 2);
  REQUIRE_THROWS_WITH(select_hooks("blocks.0.hook_residpost", 2),
                      Catch::Contains("blocks.0.hook_resid_post"));
  REQUIRE_THROWS_AS(select_hooks("blocks.2.hook_resid_post", 2), InputError);
  REQUIRE_THROWS_AS(select_hooks("", 2), InputError);
}

TEST_CASE("forward: bad input is refused by name before anything runs", "[forward]") {
  const Model model = Model::open(outputs + "tiny_llama1");
  const auto run_tokens = [&](std::vector<int> tokens) {
    Forward<float> forward(model, {});
    Hooks<float> hooks;
    std::vector<Sequence<float>> batch;
    batch.push_back(forward.start(std::move(tokens)));
    forward.run(batch, hooks);
  };
  REQUIRE_THROWS_WITH(run_tokens({}), Catch::Contains("empty"));
  REQUIRE_THROWS_WITH(run_tokens({1, -1}), Catch::Contains("-1"));
  REQUIRE_THROWS_WITH(run_tokens({static_cast<int>(model.config().vocab_size)}),
                      Catch::Contains("vocabulary"));
  const std::vector<int> longest(model.config().max_positions, 1);
  REQUIRE_NOTHROW(run_tokens(longest));
  std::vector<int> longer = longest;
  longer.push_back(1);
  REQUIRE_THROWS_WITH(run_tokens(longer), Catch::Contains("limit"));
}

TEST_CASE("precision: fp64 runs the same text, and fp32 differs from it by rounding only",
          "[forward]") {
  const Model model = Model::open(outputs + "tiny_llama3");
  const std::vector<int> tokens = some_tokens(model, 24, 3);
  const auto logits = [&]<class T>(T, const char* kernel) {
    RunOptions options;
    options.kernel = kernel;
    Forward<T> forward(model, options);
    Hooks<T> hooks;
    std::vector<Sequence<T>> batch;
    batch.push_back(forward.start(tokens));
    const Matrix<T> found = forward.run(batch, hooks);
    return std::vector<double>(found.values.begin(), found.values.end());
  };
  const std::vector<double> exact = logits(double{}, "auto"), rounded = logits(float{}, "auto");
  REQUIRE(exact == logits(double{}, "spec"));
  double error = 0, size = 0;
  for (size_t i = 0; i < exact.size(); ++i) {
    error = std::max(error, std::fabs(exact[i] - rounded[i]));
    size = std::max(size, std::fabs(exact[i]));
  }
  CHECK(error > 0);
  CHECK(error < 1e-4 * size);  // three decimal orders above fp32's unit: a slip, not rounding
}
