#include <nlohmann/json.hpp>

#include "measure/first_layer/panel.h"

namespace sinkref {

void measure_first_layer(const Experiment& e, Results& results) {
  const FirstLayerInputs inputs = first_layer_inputs(common_tokens(e.model, e.stimuli),
                                                     e.stimuli.sink, results.sinks);
  results.put(e.precision == "fp64" ? analyse_first_layer<double>(e.model, e.run, inputs, e.step)
                                    : analyse_first_layer<float>(e.model, e.run, inputs, e.step));
  results.put(inputs);
}

void first_layer_json(const Experiment&, const Results& results, bool, nlohmann::ordered_json& j) {
  j["first_layer"] = to_json(results.get<FirstLayerResult>());
}

}  // namespace sinkref
