#include <cstdio>

#include "measure/certified/panel.h"

namespace sinkref {

void certified_text(const Experiment&, const Results& results) {
  const CertifiedClaims* certified = results.find<CertifiedClaims>();
  if (certified == nullptr || certified->runs.empty()) return;
  std::puts("\nThe decisive comparisons, of the real numbers that the activations are");
  for (const CertifiedRun& run : certified->runs) {
    std::printf("  layer %zu, %s (%zu token%s%s%s)\n", run.layer, run.about.c_str(), run.tokens.size(),
                run.tokens.size() == 1 ? "" : "s", run.patch.empty() ? "" : ", patched",
                run.ablation.empty() ? "" : ", neurons ablated");
    if (!run.left_out.empty()) std::printf("    left out: %s\n", run.left_out.c_str());
    for (const ClaimResult& claim : run.claims) std::printf("    %s: %s\n", proof_name(claim.proof), claim.text.c_str());
  }
}

}  // namespace sinkref
