#include <algorithm>
#include <cstdio>

#include "measure/cluster_attack/panel.h"
#include "sinkref/error.h"

namespace sinkref {

void cluster_attack_text(const Experiment& experiment, const Results& results) {
  if (results.find<ClusterAttackResult>() == nullptr) return;
  const ClusterAttackResult& found = results.get<ClusterAttackResult>();
  const Tokenizer* tokenizer = experiment.stimuli.tokenizer.get();
  std::printf("\nCluster attack: runs of %zu tokens that layer 0 can hardly tell apart; a run succeeds if "
              "%g %%\nof its tokens fire the sink (of them: mean share)\n"
              "  sink  tokens     different  succeeded  of them  largest norm  with the patch\n",
              found.length, 100 * attack_success);
  for (const AttackRuns& a : found.attacks)
    std::printf("  %4zu  %-10s %9zu  %4zu/%-4zu  %5.1f %%  %12.1f  %4zu/%-4zu  %5.1f %%  %.1f\n", a.layer,
                a.kind.c_str(), a.different, a.fired, a.runs, 100 * a.share, a.largest,
                a.fired_patched, a.runs, 100 * a.share_patched, a.largest_patched);
  std::puts("  clusters (centre first; distance of the last as a fraction of the median between tokens)");
  for (const Cluster& c : found.clusters) {
    std::printf("  %5.2f ", c.distance.back());
    for (size_t i = 0; i < std::min<size_t>(c.members.size(), 6); ++i)
      std::printf(" %s", tokenizer ? quoted(tokenizer->piece(c.members[i])).c_str()
                                   : std::to_string(c.members[i]).c_str());
    std::printf(" … (%zu)\n", c.members.size());
  }
}

}  // namespace sinkref
