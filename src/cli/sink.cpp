// sink: sink layers and neurons, the repeats they need, and the patch.

#include <iostream>
#include <nlohmann/json.hpp>

#include "certify/sink_claims.h"
#include "cli/commands.h"
#include "cli/experiment.h"
#include "cli/inputs.h"
#include "cli/output.h"
#include "measure/panels.h"

namespace sinkref::cli {

namespace {

nlohmann::ordered_json proofs_json(const std::vector<SinkProof>& proofs) {
  nlohmann::ordered_json all = nlohmann::ordered_json::array();
  for (const SinkProof& proof : proofs)
    for (const ClaimResult& claim : proof.claims)
      all.push_back({{"layer", proof.layer},
                     {"claim", claim.text},
                     {"verdict", proof_name(claim.proof)},
                     {"left", claim.left},
                     {"right", claim.right}});
  return all;
}

void print_proofs(const std::vector<SinkProof>& proofs) {
  std::cout << "\nThe causal check as real numbers (without the sink's neurons, against the original run)\n";
  for (const SinkProof& proof : proofs)
    for (const ClaimResult& claim : proof.claims)
      std::cout << "  " << proof_name(claim.proof) << ": " << claim.text << '\n';
}

}  // namespace

int SinkCommand::run() const {
  const SinkCommand& options = *this;
  if (options.certify) require_certify();
  const Model model = open_model(options);
  Experiment experiment = sink_experiment(options, model);
  experiment.stimuli.conditions.resize(1);  // the usual one
  std::vector<std::string_view> keys = {"sink_layers", "sink_metric", "norms_by_repeats", "next_token"};
  if (options.patch_effect) keys.push_back("patch_effect");
  const std::vector<Panel> panels = panels_of(keys);
  const Results results = measure(experiment, panels);
  std::vector<SinkProof> proofs;
  if (options.certify) proofs = certify_sinks(model, run_options(options), experiment.stimuli.sink.lone, results.sinks);
  if (options.json) {
    nlohmann::ordered_json found = panels_json(experiment, results, panels, false);
    if (options.certify) found["certified"] = proofs_json(proofs);
    std::cout << json_text(found) << '\n';
  } else {
    print_panels(experiment, results, panels, true);
    if (options.certify) print_proofs(proofs);
  }
  return 0;
}

}  // namespace sinkref::cli
