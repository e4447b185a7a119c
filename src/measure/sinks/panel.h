#pragma once

#include "measure/panel.h"

// Does the model treat its very first token specially, and which neurons do it?

namespace sinkref {

nlohmann::ordered_json to_json(const SinkLayer& sink);
nlohmann::ordered_json to_json(const LayerNorms& norms);
/// A vertical line at each sink, by layer.
std::vector<Rule> sink_rules(const std::vector<SinkLayer>& sinks);

void sinks_json(const Experiment& experiment, const Results& results, bool with_curves,
                nlohmann::ordered_json& j);
void sinks_page(const PageContext& context, Page& page);
void sinks_text(const Experiment&, const Results& results);
void sinks_tensors(const Results& results, std::vector<NamedTensor>& all);

}  // namespace sinkref
