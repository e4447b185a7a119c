#pragma once

#include "certify/proof.h"
#include "measure/panel.h"

// Which of the decisive comparisons hold for the real numbers that the activations are? Rounding can make none of
// them: each becomes a claim (certify/claims.h) about one prompt, which balls prove or disprove.

namespace sinkref {

/// Claims about one prompt.
struct CertifiedRun {
  std::string about;  ///< what they decide: "sink", "neurons", "repeats", "patch"
  size_t layer = 0;   ///< of the sink
  std::vector<int> tokens;
  std::vector<Neurons> patch, ablation;
  std::string left_out;  ///< why nothing was tried; empty if it was
  size_t bits = 0;       ///< of the middles at the start
  std::vector<ClaimResult> claims;
};

struct CertifiedClaims {
  std::vector<CertifiedRun> runs;
};

/// A proof may take so much; what would take more is left out. Sizes alone decide, so that a report has the same bytes
/// on every machine.
inline constexpr double most_proof_seconds = 600;  // of one core
inline constexpr double most_proof_bytes = 4e9;    // beside the weights

void measure_certified(const Experiment& experiment, Results& results);
double certified_work(const Experiment& experiment, const Results& results);
void certified_json(const Experiment&, const Results& results, bool with_curves, nlohmann::ordered_json& j);
void certified_page(const PageContext& context, Page& page);
void certified_text(const Experiment&, const Results& results);

}  // namespace sinkref
