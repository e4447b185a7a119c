#include "measure/cluster_attack/panel.h"
#include "measure/first_layer/first_layer.h"

namespace sinkref {

ClusterInputs cluster_inputs(const Experiment& e, const std::vector<SinkLayer>& sinks) {
  ClusterInputs inputs;
  const SinkInputs& shown = e.stimuli.sink;
  if (!shown.words.empty()) inputs.prefix = shown.words[0].prefix;
  inputs.tokens = ordinary_ids(e.model, e.stimuli.tokenizer.get());
  inputs.length = shown.repeats;
  inputs.sinks = {first_sink(sinks)};
  inputs.patch = neurons_of(sinks);
  return inputs;
}

void measure_cluster_attack(const Experiment& e, Results& results) {
  if (results.sinks.empty()) return;
  results.put(
      attack_with_clusters(e.model, e.run, cluster_inputs(e, results.sinks), *e.progress));
}

double cluster_attack_work(const Experiment& e, const Results& results) {
  if (results.sinks.empty()) return 0;
  return cluster_attack_work(e.model.config(), cluster_inputs(e, results.sinks));
}

}  // namespace sinkref
