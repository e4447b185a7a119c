#include <algorithm>
#include <cmath>
#include <cstdio>

#include "measure/patch_effect/panel.h"
#include "sinkref/error.h"

namespace sinkref {

namespace {

/// Also where ids were given: what is printed is read by people.
std::unique_ptr<Tokenizer> tokenizer_of(const Model& model) {
  try {
    return Tokenizer::open(model.checkpoint());
  } catch (const InputError&) {
    return nullptr;
  }
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

void patch_effect_text(const Experiment& experiment, const Results& results) {
  if (results.find<PatchEffect>() == nullptr) return;
  const PatchEffect& effect = results.get<PatchEffect>();
  const std::unique_ptr<Tokenizer> tokenizer = tokenizer_of(experiment.model);
  std::printf("\nWhat the patch of %s does; up is the paper's, the others pin the gate, both, or "
              "ablate\n", neurons_text(effect.neurons).c_str());
  if (effect.runs.empty()) std::puts("No run sets off a sink.");
  for (const RunEffects& run : effect.runs) print_run(run, tokenizer.get());
  print_text(effect, tokenizer.get());
}

}  // namespace sinkref
