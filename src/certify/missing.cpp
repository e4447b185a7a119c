// In the place of everything else here where the build has found no Arb.

#include "certify/certify.h"
#include "certify/cost.h"
#include "sinkref/error.h"

namespace sinkref {

void require_certify() {
  refuse("certify", "this build of sinkref has no Arb, expected it for balls of real numbers",
         "install FLINT and Arb (Debian: libflint-dev, libflint-arb-dev), meson setup --reconfigure build, and build "
         "again");
}

Certificate certify(const Model&, const CertifyRequest&) {
  require_certify();
  return {};
}

CertifyCost certify_cost(const ModelConfig&, const CertifyRequest&) {
  require_certify();
  return {};
}

double CertifyCost::seconds() const { return processor_seconds; }

}  // namespace sinkref
