#include "measure/definitions/panel.h"
#include "measure/json.h"

namespace sinkref {

using nlohmann::ordered_json;

namespace {

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

}  // namespace

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

void definitions_json(const Experiment&, const Results& results, bool, ordered_json& j) {
  const Definitions& found = results.get<Definitions>();
  j["sink_metric"] = each(found.metrics, [](const SinkMetric& metric) { return to_json(metric); });
  j["massive_activations"] =
      each(found.massive, [](const MassiveLayer& layer) { return to_json(layer); });
}

}  // namespace sinkref
