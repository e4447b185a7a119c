#include "measure/certified/panel.h"
#include "measure/json.h"

namespace sinkref {

using nlohmann::ordered_json;

namespace {

ordered_json to_json(const CertifiedRun& run) {
  ordered_json j = {{"about", run.about},
                    {"layer", run.layer},
                    {"tokens", run.tokens},
                    {"patch", neurons_text(run.patch)},
                    {"ablate", neurons_text(run.ablation)},
                    {"left_out", nullptr},
                    {"bits", run.bits},
                    {"claims", each(run.claims, [](const ClaimResult& claim) {
                       return ordered_json{{"claim", claim.text},
                                           {"verdict", proof_name(claim.proof)},
                                           {"left", claim.left},
                                           {"right", claim.right}};
                     })}};
  if (!run.left_out.empty()) j["left_out"] = run.left_out;
  return j;
}

}  // namespace

void certified_json(const Experiment&, const Results& results, bool, ordered_json& j) {
  const CertifiedClaims* certified = results.find<CertifiedClaims>();
  if (certified == nullptr) return;
  j["certified"] = each(certified->runs, [](const CertifiedRun& run) { return to_json(run); });
}

}  // namespace sinkref
