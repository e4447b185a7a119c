#pragma once

#include "certify/certify.h"
#include "sinkref/config.h"

namespace sinkref {

/// Bits that are left when the last block is done: 24 of fp32, the rest so that no boundary is hit.
inline constexpr long bits_at_the_end = 64;

/// The precision to begin with. Balls lose about as many bits in each block, whatever the precision and the prompt.
long bits_needed(size_t blocks);

/// What a run will take, from its sizes.
struct CertifyCost {
  double seconds;
  double bytes;  ///< beside the weights
};
CertifyCost certify_cost(const ModelConfig& config, const CertifyRequest& request);

}  // namespace sinkref
