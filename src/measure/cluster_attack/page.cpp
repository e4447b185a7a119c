#include "measure/cluster_attack/panel.h"
#include "page/words.h"

namespace sinkref {

namespace {

Table attacks_table(const ClusterAttackResult& clusters) {
  Table table{"Cluster attack: runs of " + std::to_string(clusters.length) + " tokens",
              {"tokens", "different ones", "sink layer", "succeeded", "tokens that fire",
               "succeeded, patched", "tokens that fire, patched"}, {}};
  for (const AttackRuns& a : clusters.attacks) {
    const std::string of = " of " + std::to_string(a.runs);
    table.rows.push_back({a.kind, std::to_string(a.different), std::to_string(a.layer),
                          std::to_string(a.fired) + of, percent(a.share),
                          std::to_string(a.fired_patched) + of, percent(a.share_patched)});
  }
  return table;
}

Finding cluster_finding(const PageContext& context) {
  const ClusterAttackResult& found = context.results.get<ClusterAttackResult>();
  std::vector<std::string> parts;
  for (const AttackRuns& a : found.attacks)
    if (parts.size() < 6)
      parts.push_back(std::to_string(a.fired) + " of " + std::to_string(a.runs) + " runs of " +
                      (a.different == 1 ? "one token" : std::to_string(a.different) + " " + a.kind + " tokens"));
  return {"Do different but similar tokens set it off as well (cluster attack)?",
          "The sink fired in " + joined_text(parts) + ".",
          "Runs of " + std::to_string(found.length) +
              " tokens that layer 0 can hardly tell apart; at least " + percent(attack_success) +
              " of the tokens must pass the half-way norm.",
          "first-layer"};
}

}  // namespace

void cluster_attack_page(const PageContext& context, Page& page) {
  if (context.results.find<ClusterAttackResult>() == nullptr) return;
  page.findings.push_back(cluster_finding(context));
  page.section("first-layer").tables.push_back(attacks_table(context.results.get<ClusterAttackResult>()));
}

}  // namespace sinkref
