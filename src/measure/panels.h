#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "measure/panel.h"

// The panels, and what is done with all of them: measured, and told as JSON, page, lines, tensors.

namespace sinkref {

/// In the page's order.
const std::vector<Panel>& panels();
/// Some of them, in the same order. Throws std::logic_error for a key that is none.
std::vector<Panel> panels_of(const std::vector<std::string_view>& keys);

/// The sinks, the runs if any of the panels reads them, then every panel; what `kept` has finished is
/// not measured again.
Results measure(const Experiment& experiment, const std::vector<Panel>& panels, Kept& kept);
inline Results measure(const Experiment& experiment, const std::vector<Panel>& panels) {
  Kept nothing;
  return measure(experiment, panels, nothing);
}

/// What is run on, as ids.
nlohmann::ordered_json stimuli_json(const Stimuli& stimuli);
/// Which model, weights, program and arithmetic the numbers are of, and what the readers of the model's
/// files noticed.
nlohmann::ordered_json provenance_json(const Experiment& experiment);
/// provenance_json(), the summaries that a reader looks for first, then the panels in their order.
/// `with_curves`: report.json; without, `sink --json`.
nlohmann::ordered_json panels_json(const Experiment& experiment, const Results& results,
                                   const std::vector<Panel>& panels, bool with_curves);

/// Findings and sections; what stands above them is the caller's.
void add_panels(const PageContext& context, const std::vector<Panel>& panels, Page& page);
/// The terminal's lines. `long_ones`: those of Panel::long_text too.
void print_panels(const Experiment& experiment, const Results& results,
                  const std::vector<Panel>& panels, bool long_ones);

/// The curves and maps.
std::vector<NamedTensor> panel_tensors(const Results& results, const std::vector<Panel>& panels);

}  // namespace sinkref
