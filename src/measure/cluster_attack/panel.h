#pragma once

#include "measure/cluster_attack/cluster_attack.h"
#include "measure/panel.h"

// Do different but similar tokens set the sink off as well? Stands in the first layer's section.

namespace sinkref {

/// The first sink is attacked: there must be one.
ClusterInputs cluster_inputs(const Experiment& experiment, const std::vector<SinkLayer>& sinks);

void measure_cluster_attack(const Experiment& experiment, Results& results);
double cluster_attack_work(const Experiment& experiment, const Results& results);
void cluster_attack_json(const Experiment&, const Results& results, bool with_curves,
                         nlohmann::ordered_json& j);
void cluster_attack_page(const PageContext& context, Page& page);
void cluster_attack_text(const Experiment& experiment, const Results& results);

}  // namespace sinkref
