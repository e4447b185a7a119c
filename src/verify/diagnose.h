#pragma once

#include "sinkref/verify.h"
#include "verify/candidate.h"

namespace sinkref {

/// What happened to a list of tokens: BOS missing or doubled, else nothing known.
Diagnosis diagnose_tokens(const std::vector<int>& expected, const std::vector<int>& theirs,
                          std::optional<int> bos);

/// Runs this model with each usual fault applied on their own input of the block in which their run
/// first leaves the truth, and names those that reproduce their numbers. Adds to result.diagnosis.
void diagnose(const Model& model, const Candidate& candidate, const VerifyOptions& options,
              VerifyResult& result);

}  // namespace sinkref
