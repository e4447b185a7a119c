#include <nlohmann/json.hpp>

#include "measure/first_layer/panel.h"

namespace sinkref {

namespace {

FirstLayerInputs inputs_of(const Experiment& e, const Results& results) {
  return first_layer_inputs(common_tokens(e.model, e.stimuli), e.stimuli.sink, results.sinks);
}

}  // namespace

double first_layer_work(const Experiment& e, const Results& results) {
  constexpr double fp64 = 3;  // times the time of fp32
  return (e.precision == "fp64" ? fp64 : 1) * first_layer_work(e.model.config(), inputs_of(e, results));
}

void measure_first_layer(const Experiment& e, Results& results) {
  const FirstLayerInputs inputs = inputs_of(e, results);
  results.put(e.precision == "fp64" ? analyse_first_layer<double>(e.model, e.run, inputs, *e.progress)
                                    : analyse_first_layer<float>(e.model, e.run, inputs, *e.progress));
  results.put(inputs);
}

void first_layer_json(const Experiment&, const Results& results, bool, nlohmann::ordered_json& j) {
  j["first_layer"] = to_json(results.get<FirstLayerResult>());
}

}  // namespace sinkref
