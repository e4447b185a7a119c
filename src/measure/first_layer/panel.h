#pragma once

#include "measure/first_layer/first_layer.h"
#include "measure/panel.h"

// Does the first attention layer explain why the first token is recognised?

namespace sinkref {

/// Puts a FirstLayerResult and the FirstLayerInputs it was made on.
void measure_first_layer(const Experiment& experiment, Results& results);
double first_layer_work(const Experiment& experiment, const Results& results);
void first_layer_json(const Experiment&, const Results& results, bool with_curves,
                      nlohmann::ordered_json& j);
void first_layer_page(const PageContext& context, Page& page);
void first_layer_text(const Experiment&, const Results& results);

}  // namespace sinkref
