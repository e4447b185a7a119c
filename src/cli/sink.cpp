// sink: sink layers and neurons, the repeats they need, and the patch.

#include <iostream>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/experiment.h"
#include "cli/inputs.h"
#include "cli/output.h"
#include "measure/panels.h"

namespace sinkref::cli {

int SinkCommand::run() const {
  const SinkCommand& options = *this;
  const Model model = open_model(options);
  Experiment experiment = sink_experiment(options, model);
  experiment.stimuli.conditions.resize(1);  // the usual one
  std::vector<std::string_view> keys = {"sink_layers", "sink_metric", "norms_by_repeats", "next_token"};
  if (options.patch_effect) keys.push_back("patch_effect");
  if (options.certify) keys.push_back("certified");
  const std::vector<Panel> panels = panels_of(keys);
  const Results results = measure(experiment, panels);
  if (options.json)
    std::cout << json_text(panels_json(experiment, results, panels, false)) << '\n';
  else
    print_panels(experiment, results, panels, true);
  return 0;
}

}  // namespace sinkref::cli
