#include "measure/json.h"
#include "measure/sinks/panel.h"

namespace sinkref {

using nlohmann::ordered_json;

namespace {

ordered_json candidates_json(const std::vector<NeuronContribution>& candidates) {
  ordered_json list = ordered_json::array();
  for (const NeuronContribution& c : candidates)
    list.push_back({{"neuron", c.neuron},
                    {"gated", number(c.gated)},
                    {"gate", number(c.gate)},
                    {"norm_ablated", number(c.norm_ablated)}});
  return list;
}

}  // namespace

ordered_json to_json(const SinkLayer& sink) {
  return {{"layer", sink.layer},
          {"neurons", sink.neurons},
          {"norm_first", number(sink.norm_first)},
          {"norm_typical", number(sink.norm_typical)},
          {"norm_ablated", number(sink.norm_ablated)},
          {"mlp_first", number(sink.mlp_first)},
          {"mlp_typical", number(sink.mlp_typical)},
          {"mlp_ablated", number(sink.mlp_ablated)},
          {"by_paper_rule", sink.by_paper},
          {"candidates", candidates_json(sink.candidates)},
          {"by_gate",
           {{"neurons", sink.by_gate.neurons},
            {"norm_ablated", number(sink.by_gate.norm_ablated)},
            {"mlp_ablated", number(sink.by_gate.mlp_ablated)},
            {"candidates", candidates_json(sink.by_gate.candidates)}}}};
}

ordered_json to_json(const LayerNorms& norms) {
  return {{"mlp_first", numbers(norms.mlp_first)},
          {"mlp_typical", numbers(norms.mlp_typical)},
          {"resid_first", numbers(norms.resid_first)},
          {"resid_typical", numbers(norms.resid_typical)},
          {"paper_rule_threshold", number(norms.threshold)},
          {"paper_rule_threshold_15_layers", number(norms.threshold_notebook)}};
}

void sinks_json(const Experiment& experiment, const Results& results, bool with_curves,
                ordered_json& j) {
  const LayerNorms& norms = results.norms;
  j["lone_token"] = experiment.stimuli.sink.lone.at(0);
  j["paper_rule_threshold"] = number(norms.threshold);
  j["paper_rule_layer"] = nullptr;
  const size_t by_rule = first_layer_above(norms, norms.threshold_notebook);
  if (by_rule < norms.mlp_first.size()) j["paper_rule_layer"] = by_rule;
  j["sink_layers"] = each(results.sinks, [](const SinkLayer& sink) { return to_json(sink); });
  j["patch"] = neurons_text(results.patch);
  if (with_curves) j["layers"] = to_json(norms);
}

void sinks_tensors(const Results& results, std::vector<NamedTensor>& all) {
  const LayerNorms& norms = results.norms;
  all.push_back(vector_tensor("layers.mlp_first", norms.mlp_first));
  all.push_back(vector_tensor("layers.mlp_typical", norms.mlp_typical));
  all.push_back(vector_tensor("layers.resid_first", norms.resid_first));
  all.push_back(vector_tensor("layers.resid_typical", norms.resid_typical));
}

}  // namespace sinkref
