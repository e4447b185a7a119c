#pragma once

#include "measure/panel.h"

// Does a long run of one word come to look like a first token? Norms along the runs.

namespace sinkref {

/// A run with its counts for every sink, and (with_curves) the norms at those layers.
nlohmann::ordered_json run_json(const RepeatRun& run, const std::vector<SinkLayer>& sinks,
                                bool with_curves);

void repeats_json(const Experiment& experiment, const Results& results, bool with_curves,
                  nlohmann::ordered_json& j);
void repeats_page(const PageContext& context, Page& page);
void repeats_text(const Experiment& experiment, const Results& results);
void repeats_tensors(const Results& results, std::vector<NamedTensor>& all);

}  // namespace sinkref
