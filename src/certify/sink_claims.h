#pragma once

#include <vector>

#include "certify/certify.h"
#include "sinkref/sink.h"

namespace sinkref {

/// The causal check of each sink as claims about real numbers: without its neurons the lone first token's
/// ‖mlp_out‖ is below collapsed_below of what it was, and its ‖resid_post‖ below raised_below.
struct SinkProof {
  size_t layer;
  std::vector<ClaimResult> claims;
};
std::vector<SinkProof> certify_sinks(const Model& model, const RunOptions& options, const std::vector<int>& lone,
                                     const std::vector<SinkLayer>& sinks);

}  // namespace sinkref
