#pragma once

#include "measure/definitions/massive.h"
#include "measure/definitions/sink_metric.h"
#include "measure/panel.h"

// Do the published definitions see the sink too? They stand in the section of the sinks.

namespace sinkref {

struct Definitions {
  std::vector<MassiveLayer> massive;  ///< [layer]
  std::vector<SinkMetric> metrics;    ///< text, repeated, random
};

nlohmann::ordered_json to_json(const SinkMetric& metric);
/// Both definitions by layer, for the section of the sinks.
Figure definitions_figure(const PageContext& context);
/// Every layer that any definition names.
Table definitions_table(const PageContext& context);

void measure_definitions(const Experiment& experiment, Results& results);
double definitions_work(const Experiment& experiment, const Results& results);
void definitions_json(const Experiment&, const Results& results, bool with_curves,
                      nlohmann::ordered_json& j);
void definitions_page(const PageContext& context, Page& page);
void definitions_text(const Experiment&, const Results& results);
void definitions_tensors(const Results& results, std::vector<NamedTensor>& all);

}  // namespace sinkref
