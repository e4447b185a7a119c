#include "measure/attention/panel.h"
#include "measure/json.h"

namespace sinkref {

using nlohmann::ordered_json;

namespace {

ordered_json to_json(const LayerAttention& layer) {
  ordered_json scores = ordered_json::array();
  for (const std::vector<double>& row : layer.scores) scores.push_back(numbers(row));
  return {{"layer", layer.layer},
          {"on_first", numbers(layer.on_first)},
          {"on_body", numbers(layer.on_body)},
          {"norm", numbers(layer.norm)},
          {"scores", scores}};
}

}  // namespace

void attention_json(const Experiment&, const Results& results, bool with_curves, ordered_json& j) {
  if (!with_curves) return;
  const AttentionResult& found = results.get<AttentionResult>();
  const auto layer_json = [](const LayerAttention& layer) { return to_json(layer); };
  j["attention"] = {{"word", found.word},
                    {"condition", found.condition},
                    {"run_begins", found.run_begins},
                    {"text_score_positions", found.text_positions},
                    {"run_score_positions", found.run_positions},
                    {"text", each(found.text, layer_json)},
                    {"run", each(found.run, layer_json)}};
}

}  // namespace sinkref
