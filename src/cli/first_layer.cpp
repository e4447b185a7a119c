// first-layer: why a position that sees only itself is recognised, and the cluster attack.

#include <iostream>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/experiment.h"
#include "cli/inputs.h"
#include "cli/output.h"
#include "measure/first_layer/first_layer.h"
#include "measure/panels.h"

namespace sinkref::cli {

int FirstLayerCommand::run() const {
  const FirstLayerCommand& options = *this;
  const Model model = open_model(options);
  const Experiment experiment = experiment_for(options, model, options.repeats);
  const std::vector<Panel> panels = panels_of({"first_layer", "cluster_attack"});
  const Results results = measure(experiment, panels);
  const FirstLayerResult& found = results.get<FirstLayerResult>();
  if (options.json) {
    nlohmann::ordered_json j = {{"first_layer", nullptr}, {"cluster_attack", nullptr}};
    for (const Panel& panel : panels) panel.json(experiment, results, true, j);
    j["inputs"] = to_json(results.get<FirstLayerInputs>());
    std::cout << json_text(j, 1) << '\n';
  } else {
    print_panels(experiment, results, panels, true);
  }
  return found.closure.worst_of_bound <= 1 ? 0 : 1;
}

}  // namespace sinkref::cli
