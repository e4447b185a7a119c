#include "measure/patch_effect/patch_effect.h"

#include <algorithm>
#include <cmath>

#include "measure/patch_effect/parts.h"
#include "model/work.h"
#include "sinkref/error.h"

namespace sinkref {

void add_intervention(const Intervention& intervention, const std::vector<Neurons>& neurons,
                      Hooks<float>& hooks) {
  if (intervention.patch) add_patch(neurons, hooks, *intervention.patch);
  if (intervention.ablate) add_ablation(neurons, hooks);
}

namespace {

double run_work(const ModelConfig& c, const PatchEffectInputs::Run& run) {
  return prefill_work(c, run.prefix.size() + run.tokens.size(), intervention_count) +
         decode_work(c, patch_continuation, intervention_count, run.tokens.size());
}

double word_work(const ModelConfig& c, const PatchEffectInputs& inputs, const PatchEffectInputs::WordRuns& runs) {
  size_t blocks = 0;
  for (const SinkLayer& sink : inputs.sinks) blocks = std::max(blocks, sink.layer + 1);
  return prefill_work(c, runs.word.prefix.size() + runs.repeats, 1, 0, blocks);
}

double text_work(const ModelConfig& c, const PatchEffectInputs& inputs) {
  constexpr double compared = 60;  // a logit against the original's, in multiply-adds of a product
  double work = 0;
  for (const std::vector<int>& piece : inputs.text) {
    work += prefill_work(c, piece.size(), intervention_count, 0, SIZE_MAX, intervention_count * piece.size());
    work += compared * double(intervention_count * piece.size() * c.vocab_size);
  }
  return work;
}

/// One word under every intervention, at the sinks: no further than the last of them.
WordEffect measure_word(const Model& model, const RunOptions& options, const PatchEffectInputs& inputs,
                        const PatchEffectInputs::WordRuns& runs, Progress& progress) {
  const double work = word_work(model.config(), inputs, runs);
  WordEffect effect{runs.word.text, runs.word.token, {}};
  std::vector<int> tokens = runs.word.prefix;
  tokens.insert(tokens.end(), runs.repeats, runs.word.token);
  for (const Intervention& intervention : interventions) {
    const RepeatRun* known = intervention.ablate                     ? nullptr
                             : !intervention.patch                   ? runs.original
                             : *intervention.patch == PatchSite::up ? runs.up
                                                                     : nullptr;
    std::vector<std::vector<double>> norms(inputs.sinks.size());
    if (known == nullptr) {
      progress.step("\"" + runs.word.text + "\" with other things pinned", work);
      Hooks<float> hooks;
      add_intervention(intervention, inputs.neurons, hooks);
      for (size_t s = 0; s < inputs.sinks.size(); ++s)
        keep_norms({HookPoint::ResidPost, inputs.sinks[s].layer}, norms[s], hooks);
      run(model, options, {tokens}, hooks);
    }
    std::vector<WordAtSink>& at = effect.sinks.emplace_back();
    for (size_t s = 0; s < inputs.sinks.size(); ++s) {
      std::vector<double> run_norms =
          known != nullptr ? known->norms[inputs.sinks[s].layer]
                           : std::vector<double>(norms[s].begin() + long(runs.word.prefix.size()), norms[s].end());
      at.push_back({inputs.sinks[s].layer, repeats_to_fire(inputs.sinks[s], run_norms), run_norms.back()});
    }
  }
  return effect;
}

}  // namespace

double patch_effect_work(const ModelConfig& config, const PatchEffectInputs& inputs) {
  double work = text_work(config, inputs);
  for (const PatchEffectInputs::Run& run : inputs.runs) work += run_work(config, run);
  if (inputs.sinks.empty()) return work;
  for (const PatchEffectInputs::WordRuns& word : inputs.words)
    work += double(intervention_count - 2) * word_work(config, inputs, word);
  return work;
}

PatchEffect measure_patch_effect(const Model& model, const RunOptions& options,
                                 const PatchEffectInputs& inputs, Progress& progress) {
  if (inputs.neurons.empty()) throw InputError("there is no patch to look at; name its neurons");
  PatchEffect effect;
  effect.neurons = inputs.neurons;
  for (const PatchEffectInputs::Run& run : inputs.runs) {
    progress.step("the patch along " + run.name, run_work(model.config(), run));
    effect.runs.push_back(measure_run(model, options, inputs, run, progress));
  }
  if (!inputs.sinks.empty())
    for (const PatchEffectInputs::WordRuns& word : inputs.words)
      effect.words.push_back(measure_word(model, options, inputs, word, progress));
  if (!inputs.text.empty()) {
    progress.step("the patch on " + std::to_string(inputs.text.size()) + " pieces of ordinary text",
                  text_work(model.config(), inputs));
    measure_text(model, options, inputs, progress, effect);
  }
  return effect;
}

}  // namespace sinkref
