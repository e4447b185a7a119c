#include "cli/patch_effect.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "cli/first_layer.h"
#include "cli/inputs.h"
#include "measure/stimuli/perplexity_texts.h"
#include "sinkref/error.h"

namespace sinkref::cli {

namespace {

constexpr size_t runs_shown = 1;
constexpr size_t cluster_size = 16;

bool sets_off_a_sink(const RepeatRun& run, const std::vector<SinkLayer>& sinks) {
  const std::vector<RepeatsNeeded> needed = repeats_needed(run, sinks);
  return std::any_of(needed.begin(), needed.end(),
                     [](const RepeatsNeeded& n) { return n.count > 0; });
}

std::unique_ptr<Tokenizer> tokenizer_of(const Model& model) {
  try {
    return Tokenizer::open(model.checkpoint());
  } catch (const InputError&) {
    return nullptr;
  }
}

/// The cluster attack: different tokens of the tightest cluster, in turn.
void add_cluster_run(const Options& options, const Model& model, const ReportInputs& inputs,
                     const Report& found, PatchEffectInputs& effect) {
  if (effect.sinks.empty()) return;
  const ClusterInputs attack = cluster_inputs(options, model, inputs.sink, effect.sinks);
  if (attack.prefix.empty()) return;
  const std::vector<Cluster> clusters =
      found.clusters ? found.clusters->clusters
                     : find_clusters(lone_attention_outputs(model, run_options(options)), attack);
  std::vector<int> members = clusters.at(0).members;
  members.resize(std::min(members.size(), cluster_size));
  PatchEffectInputs::Run run{"cluster attack with " + std::to_string(members.size()) + " different tokens",
                             attack.prefix, {}};
  for (size_t i = 0; i < attack.length; ++i) run.tokens.push_back(members[i % members.size()]);
  effect.runs.push_back(std::move(run));
}

/// A token as it stands in a text, or its id.
std::string token_text(const Tokenizer* tokenizer, int token) {
  if (tokenizer == nullptr || static_cast<size_t>(token) >= tokenizer->vocab_size())
    return "#" + std::to_string(token);
  const int ids[] = {token};
  return quoted(tokenizer->decode(ids));
}

void print_neurons(const RunEffects& run) {
  std::puts("  silu(gate)*up of the patched neurons (added: norm of what it adds to the residual)\n"
            "    layer neuron  where                    gate        up      post     added");
  const auto line = [](const NeuronValue& n, const char* where) {
    std::printf("    %5zu %6zu  %-20s %8.2f  %8.2f  %8.2f  %8.1f\n", n.layer, n.neuron, where, n.gate,
                n.up, n.post, n.added);
  };
  for (size_t i = 0; i < run.first.size(); ++i) {
    line(run.first[i], "position 0, sink");
    line(run.second[i], "position 1, v");
    for (size_t k = 0; k < run.effects.size(); ++k)
      line(run.effects[k].neurons[i],
           (std::string("end, ") + interventions[k].name).c_str());
  }
}

void print_run(const RunEffects& run, const Tokenizer* tokenizer) {
  std::printf("\n%s, %zu tokens\n", run.name.c_str(), run.length);
  std::puts("  pinned    layer: needed, norm at the end        on first / on run     next token"
            "             kept  TV");
  for (size_t k = 0; k < run.effects.size(); ++k) {
    const RunEffect& e = run.effects[k];
    for (size_t i = 0; i < std::max(e.sinks.size(), e.attention.size()); ++i) {
      std::printf("  %-9s", i == 0 ? interventions[k].name : "");
      if (i < e.sinks.size())
        std::printf(" %3zu: %6s %10.1f        ", e.sinks[i].layer,
                    e.sinks[i].count == 0 ? "-" : std::to_string(e.sinks[i].count).c_str(),
                    e.sinks[i].norms.back());
      else
        std::printf("%31s", "");
      if (i < e.attention.size())
        std::printf("layer %3zu: %.3f / %.3f", e.attention[i].layer, e.attention[i].on_first,
                    e.attention[i].on_run);
      else
        std::printf("%24s", "");
      if (i == 0)
        std::printf("  %-14s p %.3f  %2zu/%zu  %.3f", token_text(tokenizer, e.next[0].token).c_str(),
                    e.next[0].probability, e.kept, patch_continuation, e.total_variation);
      std::puts("");
    }
  }
  print_neurons(run);
}

std::string error_text(double error) {
  char text[32];
  std::snprintf(text, sizeof text, error < 1 ? "%.5f" : "%.3f", error);
  return std::isnan(error) ? "?" : text;  // one piece has no spread
}

void print_text(const PatchEffect& effect, const Tokenizer* tokenizer) {
  std::printf("\nOrdinary text: %zu pieces, %zu predicted tokens (standard errors over the pieces, "
              "differences paired)\n"
              "  pinned    perplexity         nats - original's       KL mean   max  argmax moved  "
              "logits rms   max\n",
              effect.pieces, effect.predicted);
  for (size_t k = 0; k < effect.text.size(); ++k) {
    const TextEffect& e = effect.text[k];
    std::printf("  %-9s %8.3f +- %-8s %+.5f +- %-8s  %7.5f  %4.2f  %10.2f %%  %10.3f  %5.2f\n",
                interventions[k].name, e.perplexity, error_text(e.perplexity_error).c_str(),
                e.difference, error_text(e.difference_error).c_str(), e.kl_mean, e.kl_max, 100 * e.argmax_changed, e.logit_rms,
                e.logit_max);
  }
  std::puts("  Vocabulary entries whose logits move most (mean |move|, mean move)");
  for (size_t k = 1; k < effect.text.size(); ++k) {
    std::printf("  %-9s", interventions[k].name);
    for (size_t i = 0; i < std::min<size_t>(4, effect.text[k].tokens.size()); ++i) {
      const LogitShift& t = effect.text[k].tokens[i];
      std::printf(" %s (%.3f, %+.3f)", token_text(tokenizer, t.token).c_str(), t.mean_absolute,
                  t.mean);
    }
    std::puts("");
  }
}

}  // namespace

PatchEffectInputs patch_effect_inputs(const Options& options, const Model& model,
                                      const ReportInputs& inputs, const Report& found) {
  PatchEffectInputs effect;
  effect.sinks = found.sinks;
  effect.neurons = found.patch;
  const ReportInputs::Condition& condition = inputs.conditions[0];
  for (const RepeatRun& run : found.runs)
    if (run.condition == condition.name && !run.patched && effect.runs.size() < runs_shown &&
        !condition.prefix.empty() && sets_off_a_sink(run, found.sinks))
      effect.runs.push_back({std::to_string(condition.repeats) + " repeats of \"" + run.word + "\"",
                             condition.prefix, std::vector<int>(condition.repeats, run.token)});
  add_cluster_run(options, model, inputs, found, effect);
  const std::unique_ptr<Tokenizer> tokenizer =
      options.tokens || options.tokens_file ? nullptr : tokenizer_of(model);
  if (tokenizer) {
    for (const char* text : perplexity_texts)
      effect.text.push_back(tokenizer->encode(text, options.bos));
  } else {
    effect.text.push_back(inputs.sink.text);
  }
  for (std::vector<int>& piece : effect.text)
    piece.resize(std::min(piece.size(), model.config().max_positions));
  return effect;
}

void print_patch_effect(const PatchEffect& effect, const Model& model) {
  const std::unique_ptr<Tokenizer> tokenizer = tokenizer_of(model);
  std::printf("\nWhat the patch of %s does; up is the paper's, the others pin the gate, both, or "
              "ablate\n", neurons_text(effect.neurons).c_str());
  if (effect.runs.empty()) std::puts("No run sets off a sink.");
  for (const RunEffects& run : effect.runs) print_run(run, tokenizer.get());
  print_text(effect, tokenizer.get());
}

}  // namespace sinkref::cli
