#include "measure/json.h"

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

ordered_json to_json(const MassiveLayer& layer) {
  ordered_json largest = ordered_json::array();
  for (const MassiveActivation& a : layer.largest)
    largest.push_back({{"position", a.position},
                       {"dimension", a.dimension},
                       {"value", number(a.value)}});
  return {{"largest", largest},
          {"median_all", number(layer.median_all)},
          {"median_token", number(layer.median_token)},
          {"massive_by_all", layer.by_all},
          {"massive_by_token", layer.by_token}};
}

ordered_json to_json(const SinkMetric& metric) {
  ordered_json attention = ordered_json::array();
  for (const std::vector<double>& heads : metric.attention) attention.push_back(numbers(heads));
  return {{"kind", metric.kind},
          {"samples", metric.samples},
          {"length", metric.length},
          {"epsilon", sink_epsilon},
          {"percent", number(metric.percent)},
          {"percent_by_layer", numbers(metric.by_layer)},
          {"attention_on_first", attention}};
}

ordered_json to_json(const LayerAttention& layer) {
  ordered_json scores = ordered_json::array();
  for (const std::vector<double>& row : layer.scores) scores.push_back(numbers(row));
  return {{"layer", layer.layer},
          {"on_first", numbers(layer.on_first)},
          {"on_body", numbers(layer.on_body)},
          {"norm", numbers(layer.norm)},
          {"scores", scores}};
}

ordered_json to_json(const AttentionPanel& panel) {
  ordered_json text = ordered_json::array(), run = ordered_json::array();
  for (const LayerAttention& layer : panel.text) text.push_back(to_json(layer));
  for (const LayerAttention& layer : panel.run) run.push_back(to_json(layer));
  return {{"word", panel.word},
          {"condition", panel.condition},
          {"run_begins", panel.run_begins},
          {"text", text},
          {"run", run}};
}

}  // namespace sinkref
