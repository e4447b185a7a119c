// The runs and the text that the patch is tried on.

#include <algorithm>

#include "measure/cluster_attack/panel.h"
#include "measure/patch_effect/panel.h"

namespace sinkref {

namespace {

constexpr size_t runs_shown = 1;
constexpr size_t cluster_size = 16;

bool sets_off_a_sink(const RepeatRun& run, const std::vector<SinkLayer>& sinks) {
  const std::vector<RepeatsNeeded> needed = repeats_needed(run, sinks);
  return std::any_of(needed.begin(), needed.end(),
                     [](const RepeatsNeeded& n) { return n.count > 0; });
}

/// The cluster attack: different tokens of the tightest cluster, in turn.
void add_cluster_run(const Experiment& e, const Results& results, PatchEffectInputs& effect) {
  if (results.sinks.empty()) return;
  const ClusterInputs attack = cluster_inputs(e, results.sinks);
  if (attack.prefix.empty()) return;
  const ClusterAttackResult* found = results.find<ClusterAttackResult>();
  const std::vector<Cluster> clusters =
      found != nullptr ? found->clusters
                       : find_clusters(lone_attention_outputs(e.model, e.run), attack);
  std::vector<int> members = clusters.at(0).members;
  members.resize(std::min(members.size(), cluster_size));
  PatchEffectInputs::Run run{"cluster attack with " + std::to_string(members.size()) + " different tokens",
                             attack.prefix, {}};
  for (size_t i = 0; i < attack.length; ++i) run.tokens.push_back(members[i % members.size()]);
  effect.runs.push_back(std::move(run));
}

/// A run of the usual condition that sets off a sink, the cluster attack, and ordinary text.
PatchEffectInputs patch_effect_inputs(const Experiment& e, const Results& results) {
  PatchEffectInputs inputs;
  inputs.sinks = results.sinks;
  inputs.neurons = results.patch;
  const Stimuli::Condition& usual = e.stimuli.usual();
  for (const RepeatRun& run : results.runs)
    if (run.condition == usual.name && !run.patched && inputs.runs.size() < runs_shown &&
        !usual.prefix.empty() && sets_off_a_sink(run, results.sinks))
      inputs.runs.push_back({std::to_string(usual.repeats) + " repeats of \"" + run.word + "\"",
                             usual.prefix, std::vector<int>(usual.repeats, run.token)});
  add_cluster_run(e, results, inputs);
  for (const SinkInputs::Word& word : e.stimuli.sink.words)
    inputs.words.push_back({word, usual.repeats, results.run_of(word.text, usual.name, false),
                            results.run_of(word.text, usual.name, true)});
  inputs.text = perplexity_pieces(e.model, e.stimuli);
  return inputs;
}

}  // namespace

void measure_patch_effect(const Experiment& e, Results& results) {
  if (results.patch.empty()) return;
  results.put(measure_patch_effect(e.model, e.run, patch_effect_inputs(e, results), *e.progress));
}

double patch_effect_work(const Experiment& e, const Results& results) {
  if (results.patch.empty()) return 0;
  PatchEffectInputs planned;
  planned.sinks = results.sinks;
  planned.words.resize(e.stimuli.sink.words.size(), {e.stimuli.sink.words.at(0), e.stimuli.usual().repeats});
  planned.text = perplexity_pieces(e.model, e.stimuli);
  // A run that sets off a sink, and the cluster attack.
  const Stimuli::Condition& usual = e.stimuli.usual();
  if (!results.sinks.empty() && !usual.prefix.empty())
    planned.runs.resize(2, {"", usual.prefix, std::vector<int>(usual.repeats, 0)});
  return patch_effect_work(e.model.config(), planned);
}

}  // namespace sinkref
