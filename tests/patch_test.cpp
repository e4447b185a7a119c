// The patch: pinned from position 1 on, whatever way the tokens come in.

#include "sinkref/interventions.h"

#include <catch2/catch.hpp>
#include <cstring>
#include <filesystem>

#include "sinkref/error.h"
#include "sinkref/forward.h"

using namespace sinkref;

namespace {

const std::string outputs = SINKREF_SOURCE_DIR "/reference_outputs/";

/// Two layers, several neurons of each.
const std::vector<Neurons> two_layers = {{0, {3, 50}}, {1, {5, 17, 40}}};

std::vector<int> some_tokens(size_t n, int seed) {
  std::vector<int> tokens;
  for (size_t i = 0; i < n; ++i)
    tokens.push_back(static_cast<int>((static_cast<size_t>(seed) * 101 + i * i * 31 + i * 17) % 256));
  for (size_t i = n / 2; i < n * 3 / 4; ++i) tokens[i] = tokens[n / 2];
  return tokens;
}

bool same_bits(const Matrix<float>& a, const Matrix<float>& b) {
  return !a.values.empty() && a.values.size() == b.values.size() &&
         std::memcmp(a.values.data(), b.values.data(), a.values.size() * sizeof(float)) == 0;
}

/// Logits of the last position of every sequence.
Matrix<float> run(const Model& model, std::vector<Sequence<float>>& batch, Hooks<float>& hooks,
                  bool prompt = true, size_t chunk = 512) {
  RunOptions options;
  options.chunk = chunk;
  Forward<float> forward(model, options);
  return forward.run(batch, hooks, prompt);
}

Sequence<float> start(const Model& model, const std::vector<int>& tokens) {
  return Forward<float>(model, {}).start(tokens);
}

Matrix<float> patched_logits(const Model& model, const std::vector<int>& tokens,
                             const std::vector<Neurons>& neurons,
                             PatchSite site = PatchSite::up) {
  Hooks<float> hooks;
  add_patch(neurons, hooks, site);
  std::vector<Sequence<float>> batch = {start(model, tokens)};
  const Matrix<float> logits = run(model, batch, hooks);
  hooks.require_all_called();
  return logits;
}

/// Values of one hook at every position, as [position][neuron], with the patch on `site`.
std::vector<std::vector<float>> values(const Model& model, const std::vector<int>& tokens,
                                       Hook hook, const std::vector<Neurons>& neurons,
                                       PatchSite site) {
  std::vector<std::vector<float>> rows;
  Hooks<float> hooks;
  add_patch(neurons, hooks, site);
  hooks.add(hook, [&](const Activation<float>& a) {
    for (size_t r = 0; r < a.rows.size(); ++r) rows.emplace_back(a.row(r), a.row(r) + a.width);
  });
  std::vector<Sequence<float>> batch = {start(model, tokens)};
  run(model, batch, hooks);
  return rows;
}

}  // namespace

TEST_CASE("patch: each site pins its own quantity, of the chosen neurons, from position 1 on",
          "[patch]") {
  const Model model = Model::open(outputs + "tiny_llama1");
  const std::vector<int> tokens = some_tokens(20, 1);
  const std::vector<Neurons> neurons = {{1, {17, 3}}};
  const std::vector<std::pair<PatchSite, HookPoint>> pinned = {{PatchSite::up, HookPoint::PreLinear},
                                                               {PatchSite::gate, HookPoint::Pre},
                                                               {PatchSite::both, HookPoint::PreLinear},
                                                               {PatchSite::both, HookPoint::Pre},
                                                               {PatchSite::post, HookPoint::Post}};
  for (const auto& [site, point] : pinned) {
    INFO(patch_site_name(site) << " " << hook_name({point, 1}));
    const auto plain = values(model, tokens, {point, 1}, {}, site);
    const auto patched = values(model, tokens, {point, 1}, neurons, site);
    REQUIRE(patched.size() == tokens.size());
    for (size_t p = 0; p < tokens.size(); ++p)
      for (size_t n = 0; n < plain[p].size(); ++n) {
        const bool is_pinned = p > 0 && (n == 17 || n == 3);
        REQUIRE(patched[p][n] == (is_pinned ? plain[1][n] : plain[p][n]));
      }
    CHECK(patched != plain);
  }
}

TEST_CASE("patch: gate and up pinned together make the model that the pinned product makes",
          "[patch]") {
  for (const char* name : {"tiny_llama1", "tiny_mistral"}) {
    const Model model = Model::open(outputs + name);
    const std::vector<int> tokens = some_tokens(30, 2);
    const Matrix<float> both = patched_logits(model, tokens, two_layers, PatchSite::both);
    CHECK(same_bits(both, patched_logits(model, tokens, two_layers, PatchSite::post)));
    CHECK_FALSE(same_bits(both, patched_logits(model, tokens, two_layers, PatchSite::gate)));
  }
}

TEST_CASE("patch: chunks, decode and a batch of unequal lengths give the bits of the whole prompt",
          "[patch]") {
  const Model model = Model::open(outputs + "tiny_llama2");
  const std::vector<std::vector<int>> prompts = {some_tokens(40, 3), some_tokens(3, 4),
                                                 some_tokens(2, 5), some_tokens(27, 6)};
  for (PatchSite site : patch_sites)
    for (size_t chunk : {1, 2, 3, 512}) {
      INFO(patch_site_name(site) << " chunk " << chunk);
      Hooks<float> hooks;
      add_patch(two_layers, hooks, site);
      std::vector<Sequence<float>> batch;
      for (const std::vector<int>& tokens : prompts) batch.push_back(start(model, tokens));
      const Matrix<float> logits = run(model, batch, hooks, true, chunk);
      for (size_t i = 0; i < prompts.size(); ++i) {
        const Matrix<float> alone = patched_logits(model, prompts[i], two_layers, site);
        REQUIRE(std::memcmp(logits.row(i), alone.row(0), logits.cols * sizeof(float)) == 0);
      }
      // Decode: the last tokens of the first prompt one at a time.
      batch = {start(model, {prompts[0].begin(), prompts[0].begin() + 30})};
      Matrix<float> last = run(model, batch, hooks, true, chunk);
      for (size_t t = 30; t < prompts[0].size(); ++t) {
        batch[0].pending = {prompts[0][t]};
        last = run(model, batch, hooks, false);
      }
      REQUIRE(same_bits(last, patched_logits(model, prompts[0], two_layers, site)));
    }
}

TEST_CASE("patch: v goes with the cache into forks, another batch order and other hooks",
          "[patch]") {
  const Model model = Model::open(outputs + "tiny_llama3");
  const std::vector<int> first = some_tokens(20, 7), second = some_tokens(12, 8);
  const std::vector<std::vector<int>> endings = {{9}, {11, 30, 7}, {200}};
  Hooks<float> hooks;
  add_patch(two_layers, hooks);
  std::vector<Sequence<float>> prefixes = {start(model, first), start(model, second)};
  run(model, prefixes, hooks);

  // What an evaluation does: one copy of a prefix for each choice, in any order, in later runs.
  std::vector<Sequence<float>> forks;
  std::vector<std::vector<int>> wholes;
  for (size_t prefix : {1, 0})
    for (const std::vector<int>& ending : endings) {
      forks.push_back(prefixes[prefix]);
      forks.back().pending = ending;
      wholes.push_back(prefix == 0 ? first : second);
      wholes.back().insert(wholes.back().end(), ending.begin(), ending.end());
    }
  Hooks<float> others;  // of a later run
  add_patch(two_layers, others);
  const Matrix<float> logits = run(model, forks, others);
  for (size_t i = 0; i < forks.size(); ++i) {
    INFO("fork " << i);
    const Matrix<float> whole = patched_logits(model, wholes[i], two_layers);
    REQUIRE(std::memcmp(logits.row(i), whole.row(0), logits.cols * sizeof(float)) == 0);
  }
}

TEST_CASE("patch: a cache cut to any length gives the bits of running what is left and what follows",
          "[patch]") {
  const Model model = Model::open(outputs + "tiny_llama1");
  const std::vector<int> old_tokens = some_tokens(20, 9), other = some_tokens(25, 10);
  Hooks<float> hooks;
  add_patch(two_layers, hooks);
  for (size_t kept : {0, 1, 2, 3, 19}) {
    INFO("kept " << kept);
    std::vector<Sequence<float>> batch = {start(model, old_tokens)};
    run(model, batch, hooks);
    batch[0].cache.length = kept;
    batch[0].pending.assign(other.begin() + static_cast<long>(kept), other.end());
    std::vector<int> whole(old_tokens.begin(), old_tokens.begin() + static_cast<long>(kept));
    whole.insert(whole.end(), batch[0].pending.begin(), batch[0].pending.end());
    REQUIRE(same_bits(run(model, batch, hooks), patched_logits(model, whole, two_layers)));
  }
  // Cut to one token and decoded from there: a prompt of one token, and v of before is forgotten.
  std::vector<Sequence<float>> batch = {start(model, old_tokens)}, one = {start(model, {old_tokens[0]})};
  run(model, batch, hooks);
  batch[0].cache.length = 1;
  Hooks<float> none;
  run(model, one, none);
  for (int token : {7, 8, 9}) {
    batch[0].pending = one[0].pending = {token};
    REQUIRE(same_bits(run(model, batch, hooks, false), run(model, one, none, false)));
  }
}

TEST_CASE("patch: a prompt of one token is never pinned, one of two is from its second", "[patch]") {
  const Model model = Model::open(outputs + "tiny_mistral");
  const std::vector<Neurons> neurons = {{0, {1}}, {2, {3, 50}}};
  for (size_t prompt : {1, 2}) {
    Hooks<float> hooks, none;
    add_patch(neurons, hooks);
    std::vector<int> tokens = some_tokens(8, 11);
    std::vector<Sequence<float>> batch = {start(model, {tokens.begin(), tokens.begin() + long(prompt)})};
    Matrix<float> logits = run(model, batch, hooks);
    for (size_t t = prompt; t < tokens.size(); ++t) {
      batch[0].pending = {tokens[t]};
      logits = run(model, batch, hooks, false);
    }
    CHECK(same_bits(logits, patched_logits(model, tokens, {})) == (prompt == 1));
    CHECK(same_bits(logits, patched_logits(model, tokens, neurons)) == (prompt == 2));
  }
}

TEST_CASE("patch: neurons given twice, at once or by a second patch of the layer, are one patch",
          "[patch]") {
  const Model model = Model::open(outputs + "tiny_llama1");
  const std::vector<int> tokens = some_tokens(15, 12);
  const auto parsed = [&](const char* text) { return parse_neurons(text, "--patch", model.config()); };
  const Matrix<float> expected = patched_logits(model, tokens, parsed("1:3,17;0:5"));
  CHECK(same_bits(patched_logits(model, tokens, parsed("0:5,5;1:17;1:3,17")), expected));
  CHECK_FALSE(same_bits(patched_logits(model, tokens, parsed("1:3,17")), expected));
}

TEST_CASE("patch: a sequence that passed position 1 without it is refused, not left unpinned",
          "[patch]") {
  const Model model = Model::open(outputs + "tiny_llama1");
  Hooks<float> none, hooks, more;
  add_patch({{1, {17}}}, hooks);
  add_patch({{1, {17, 18}}}, more);
  std::vector<Sequence<float>> batch = {start(model, some_tokens(10, 13))};
  run(model, batch, none);
  batch[0].pending = {5};
  REQUIRE_THROWS_WITH(run(model, batch, hooks), Catch::Contains("position 1"));
  batch = {start(model, some_tokens(10, 13))};
  run(model, batch, hooks);
  batch[0].pending = {5};
  REQUIRE_THROWS_WITH(run(model, batch, more), Catch::Contains("neuron 18"));
}
