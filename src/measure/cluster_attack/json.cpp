#include <nlohmann/json.hpp>

#include "measure/cluster_attack/panel.h"

namespace sinkref {

using nlohmann::ordered_json;

void cluster_attack_json(const Experiment&, const Results& results, bool, ordered_json& j) {
  if (results.find<ClusterAttackResult>() == nullptr) return;
  const ClusterAttackResult& found = results.get<ClusterAttackResult>();
  ordered_json clusters = ordered_json::array(), attacks = ordered_json::array();
  for (const Cluster& c : found.clusters)
    clusters.push_back({{"members", c.members}, {"distance", c.distance}});
  for (const AttackRuns& a : found.attacks)
    attacks.push_back({{"kind", a.kind},
                       {"different", a.different},
                       {"layer", a.layer},
                       {"runs", a.runs},
                       {"fired", a.fired},
                       {"fired_patched", a.fired_patched},
                       {"share", a.share},
                       {"share_patched", a.share_patched},
                       {"largest_norm", a.largest},
                       {"largest_norm_patched", a.largest_patched}});
  j["cluster_attack"] = {{"length", found.length},
                         {"success_share", attack_success},
                         {"clusters", clusters},
                         {"attacks", attacks}};
}

}  // namespace sinkref
