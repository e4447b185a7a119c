#include "certify/sink_claims.h"

#include <sstream>

namespace sinkref {

namespace {

std::string below(double share, Hook hook) {
  std::ostringstream claim;
  claim << "norm(" << hook_name(hook) << "[0]) < " << share << " * norm(original:" << hook_name(hook) << "[0])\n";
  return claim.str();
}

}  // namespace

std::vector<SinkProof> certify_sinks(const Model& model, const RunOptions& options, const std::vector<int>& lone,
                                     const std::vector<SinkLayer>& sinks) {
  require_certify();
  std::vector<SinkProof> proofs;
  for (const SinkLayer& sink : sinks) {
    CertifyRequest request;
    request.tokens = lone;
    request.softmax = options.softmax;
    request.kernel = options.kernel;
    request.ablation = {{sink.layer, sink.neurons}};
    request.claims_file = "sink --certify";
    request.claims = below(collapsed_below, {HookPoint::MlpOut, sink.layer}) +
                     below(raised_below, {HookPoint::ResidPost, sink.layer});
    proofs.push_back({sink.layer, certify(model, request).claims});
  }
  return proofs;
}

}  // namespace sinkref
