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

/// "4, 16 and 64 tokens of one cluster in 5, 7 and 4 of 8 runs"
std::string fired_text(const std::vector<AttackRuns>& attacks, const std::string& kind,
                       size_t AttackRuns::* fired) {
  std::vector<std::string> different, counts;
  for (const AttackRuns& a : attacks)
    if (a.kind == kind) {
      different.push_back(std::to_string(a.different));
      counts.push_back(std::to_string(a.*fired));
    }
  const std::string of = " in " + joined_text(counts) + " of " + std::to_string(attacks.at(0).runs) + " runs";
  if (kind == "identical") return "one token repeated" + of;
  return joined_text(different) + (kind == "cluster" ? " tokens of one cluster" : " tokens drawn at random") + of;
}

Finding cluster_finding(const PageContext& context) {
  const ClusterAttackResult& found = context.results.get<ClusterAttackResult>();
  const std::vector<AttackRuns>& all = found.attacks;
  const auto both = [&](size_t AttackRuns::* fired) {
    return fired_text(all, "identical", fired) + ", " + fired_text(all, "cluster", fired);
  };
  return {"Do different but similar tokens set it off as well (cluster attack)?",
          sentence("runs " + after_text(context.usual().name) + ", layer " + std::to_string(all.at(0).layer) +
                   ": " + both(&AttackRuns::fired)) +
              " " + sentence("with the patch: " + both(&AttackRuns::fired_patched)),
          "Runs of " + std::to_string(found.length) +
              " tokens that layer 0 can hardly tell apart; at least " + percent(attack_success) +
              " of the tokens must pass the half-way norm.",
          "first-layer",
          fired_text(all, "random", &AttackRuns::fired) + ", patched " +
              fired_text(all, "random", &AttackRuns::fired_patched).substr(
                  fired_text(all, "random", &AttackRuns::fired_patched).find(" in ") + 1) + "."};
}

}  // namespace

void cluster_attack_page(const PageContext& context, Page& page) {
  if (context.results.find<ClusterAttackResult>() == nullptr) return;
  page.findings.push_back(cluster_finding(context));
  page.section("first-layer").tables.push_back(attacks_table(context.results.get<ClusterAttackResult>()));
}

}  // namespace sinkref
