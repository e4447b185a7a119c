#include "cli/prover.h"

#include "certify/certify.h"
#include "certify/cost.h"

namespace sinkref::cli {

Prover prover_for(const Model& model) {
  require_certify();
  return {[&model](const CertifyRequest& request) { return certify_cost(model.config(), request); },
          [&model](const CertifyRequest& request) { return certify(model, request); }};
}

}  // namespace sinkref::cli
