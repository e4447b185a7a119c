#pragma once

#include <algorithm>
#include <vector>

#include "certify/certify.h"
#include "sinkref/config.h"
#include "sinkref/hooks.h"

namespace sinkref {

class Claims;

/// Bits that are left when the last block is done: 24 of fp32, the rest so that no boundary is hit.
inline constexpr long bits_at_the_end = 64;

/// The precision to begin with. Balls lose about as many bits in each block, whatever the precision and the prompt.
long bits_needed(size_t blocks);

/// The blocks that have to be run to see all of the hooks.
inline size_t blocks_needed(const std::vector<Hook>& hooks, size_t layers) {
  size_t blocks = 0;
  for (const Hook hook : hooks) blocks = std::max(blocks, blocks_needed(hook, layers));
  return blocks;
}
/// What has to be seen of the run as asked for, changes included; what claims say of the original one is theirs.
std::vector<Hook> hooks_needed(const CertifyRequest& request, const Claims& claims);

/// What a run will take, from its sizes.
struct CertifyCost {
  double processor_seconds;  ///< of one core, whatever the threads
  double bytes;              ///< beside the weights

  double seconds() const;  ///< with the threads there are
};
CertifyCost certify_cost(const ModelConfig& config, const CertifyRequest& request);

}  // namespace sinkref
