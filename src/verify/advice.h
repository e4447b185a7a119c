#pragma once

#include <string>

#include "sinkref/verify.h"
#include "verify/candidate.h"

namespace sinkref {

/// What the reader does next: the remedy of the fault that was named, or what to capture so that the
/// next run says more. Needs result.first.
std::string next_step(const Model& model, const Candidate& candidate, const VerifyResult& result);

}  // namespace sinkref
