// What the patch does: against sums written out here, and what must be so by construction.

#include "measure/patch_effect/patch_effect.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/threads.h"
#include "measure/patch_effect/panel.h"
#include "sinkref/error.h"

using namespace sinkref;

namespace {

const std::string outputs = SINKREF_SOURCE_DIR "/reference_outputs/";

PatchEffectInputs some_inputs() {
  PatchEffectInputs inputs;
  SinkLayer sink;
  sink.layer = 1;
  sink.neurons = {17, 5};
  sink.norm_first = 40;
  sink.norm_typical = 2;
  inputs.sinks = {sink};
  inputs.neurons = {{1, {17, 5}}};
  inputs.runs = {{"repeats", {1, 40, 9}, std::vector<int>(30, 77)}};
  inputs.text = {{1, 5, 9, 200, 31, 44, 150}, {1, 12, 90, 7}, {1, 33, 118, 30, 64, 21}};
  return inputs;
}

PatchEffect measured(const Model& model, const PatchEffectInputs& inputs) {
  Progress nobody;
  return measure_patch_effect(model, {}, inputs, nobody);
}

size_t index_of(const std::string& name) {
  for (size_t i = 0; i < intervention_count; ++i)
    if (interventions[i].name == name) return i;
  throw std::logic_error("no intervention " + name);
}

/// All logits of a sequence, [position][V].
std::vector<std::vector<float>> logits_of(const Model& model, const std::vector<int>& tokens,
                                          Hooks<float>& hooks) {
  std::vector<std::vector<float>> rows;
  hooks.add({HookPoint::Logits, 0}, [&](const Activation<float>& a) {
    for (size_t r = 0; r < a.rows.size(); ++r) rows.emplace_back(a.row(r), a.row(r) + a.width);
  });
  RunOptions options;
  Forward<float> forward(model, options);
  std::vector<Sequence<float>> batch = {forward.start(tokens)};
  forward.run(batch, hooks);
  return rows;
}

double log_probability(const std::vector<float>& logits, int token) {
  long double sum = 0;
  for (float l : logits) sum += std::exp(static_cast<long double>(l));
  return static_cast<double>(logits[static_cast<size_t>(token)] - std::log(sum));
}

}  // namespace

TEST_CASE("patch effect: mean and standard error of a ratio of sums", "[patch]") {
  // Equal counts: the plain standard error of the means 1, 2, 6 of the pieces.
  const RatioEstimate equal = ratio_estimate({4, 8, 24}, {4, 4, 4});
  CHECK(equal.mean == 3);
  CHECK(equal.error == Approx(std::sqrt(7.0 / 3)).epsilon(1e-14));
  // A piece at the mean adds no spread of its own, however long it is.
  const RatioEstimate unequal = ratio_estimate({3, 30, 9}, {1, 10, 3});
  CHECK(unequal.mean == 3);
  CHECK(unequal.error == 0);
  CHECK(std::isnan(ratio_estimate({4}, {2}).error));
}

TEST_CASE("patch effect: perplexity, divergence and moves are those of the logits", "[patch]") {
  const Model model = Model::open(outputs + "tiny_llama1");
  const PatchEffectInputs inputs = some_inputs();
  const PatchEffect effect = measured(model, inputs);
  REQUIRE(effect.text.size() == intervention_count);
  CHECK(effect.pieces == 3);
  CHECK(effect.predicted == 6 + 3 + 5);
  for (size_t i = 0; i < intervention_count; ++i) {
    INFO(interventions[i].name);
    double nll = 0, kl = 0, squares = 0, largest = 0;
    size_t positions = 0, changed = 0;
    for (const std::vector<int>& piece : inputs.text) {
      Hooks<float> none, hooks;
      add_intervention(interventions[i], inputs.neurons, hooks);
      const auto before = logits_of(model, piece, none), after = logits_of(model, piece, hooks);
      for (size_t p = 0; p < piece.size(); ++p, ++positions) {
        if (p + 1 < piece.size()) nll -= log_probability(after[p], piece[p + 1]);
        double common = 0;
        for (size_t t = 0; t < after[p].size(); ++t)
          common += (double(after[p][t]) - double(before[p][t])) / double(after[p].size());
        for (size_t t = 0; t < after[p].size(); ++t) {
          const double lp = log_probability(before[p], int(t)), lq = log_probability(after[p], int(t));
          kl += std::exp(lp) * (lp - lq);
          const double move = double(after[p][t]) - double(before[p][t]) - common;
          squares += move * move;
          largest = std::max(largest, std::fabs(move));
        }
        const auto best = [](const std::vector<float>& l) {
          return std::max_element(l.begin(), l.end()) - l.begin();
        };
        changed += best(before[p]) != best(after[p]);
      }
    }
    const TextEffect& text = effect.text[i];
    const double vocabulary = double(model.config().vocab_size);
    CHECK(text.nll == Approx(nll / 14).epsilon(1e-12));
    CHECK(text.perplexity == Approx(std::exp(nll / 14)).epsilon(1e-12));
    CHECK(text.difference == Approx(text.nll - effect.text[0].nll).margin(1e-12));
    CHECK(text.kl_mean == Approx(kl / double(positions)).margin(1e-12));
    CHECK(text.logit_rms == Approx(std::sqrt(squares / double(positions) / vocabulary)).margin(1e-12));
    CHECK(text.logit_max == Approx(largest).margin(1e-12));
    CHECK(text.argmax_changed == double(changed) / double(positions));
    CHECK((text.logit_rms > 0) == (i > 0));
  }
}

TEST_CASE("patch effect: the original is unmoved, pinned values are v, ablated ones are zero",
          "[patch]") {
  const Model model = Model::open(outputs + "tiny_llama1");
  const PatchEffect effect = measured(model, some_inputs());
  const RunEffects& run = effect.runs.at(0);
  REQUIRE(run.effects.size() == intervention_count);
  const RunEffect& original = run.effects[0];
  CHECK(original.total_variation == 0);
  CHECK(original.kl == 0);
  for (size_t n = 0; n < 2; ++n) {
    const NeuronValue& v = run.second[n];
    CHECK(v.neuron == (n == 0 ? 17 : 5));
    CHECK(run.effects[index_of("up")].neurons[n].up == v.up);
    CHECK(run.effects[index_of("up")].neurons[n].gate == original.neurons[n].gate);
    CHECK(run.effects[index_of("gate")].neurons[n].gate == v.gate);
    CHECK(run.effects[index_of("gate")].neurons[n].up == original.neurons[n].up);
    CHECK(run.effects[index_of("both")].neurons[n].post == v.post);
    CHECK(run.effects[index_of("ablated")].neurons[n].post == 0);
    CHECK(original.neurons[n].up != v.up);
  }
  for (const RunEffect& e : run.effects) {
    CHECK(e.sinks.at(0).norms.size() == 30);
    CHECK(e.continuation.size() <= patch_continuation);
    CHECK(e.kept <= e.continuation.size());
    for (const RunAttention& a : e.attention) CHECK(a.on_first + a.on_run <= 1 + 1e-6);
  }
}

TEST_CASE("patch effect: the result does not depend on threads, chunks or the kernel", "[patch]") {
  const Model model = Model::open(outputs + "tiny_llama3");
  const auto json = [&](size_t threads, size_t chunk, const std::string& kernel) {
    set_thread_count(threads);
    RunOptions options;
    options.chunk = chunk;
    options.kernel = kernel;
    Progress nobody;
    return to_json(measure_patch_effect(model, options, some_inputs(), nobody),
                   true).dump();
  };
  const std::string expected = json(1, 512, "auto");
  CHECK(json(2, 512, "auto") == expected);
  CHECK(json(3, 5, "auto") == expected);
  CHECK(json(2, 5, "spec") == expected);  // whose hooks see one sequence after the other
}

TEST_CASE("patch effect: no neurons, a run without prefix and a text of one token are refused",
          "[patch]") {
  const Model model = Model::open(outputs + "tiny_llama1");
  PatchEffectInputs inputs = some_inputs();
  inputs.neurons.clear();
  REQUIRE_THROWS_AS(measured(model, inputs), InputError);
  inputs = some_inputs();
  inputs.runs[0].prefix.clear();
  REQUIRE_THROWS_WITH(measured(model, inputs), Catch::Contains("prefix"));
  inputs = some_inputs();
  inputs.text.push_back({1});
  REQUIRE_THROWS_WITH(measured(model, inputs), Catch::Contains("two tokens"));
}
