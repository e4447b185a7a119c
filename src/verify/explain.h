#pragma once

#include "verify/hypotheses.h"

namespace sinkref {

/// How well a hypothesis reproduces their numbers: the largest error over budget, each step from
/// their own input.
struct Explanation {
  double at_first = 0;  ///< at the hook that was asked about
  double anywhere = 0;  ///< over all that was compared
  double over = 0;      ///< share of the rows of the hook asked about that are over budget
};

/// Runs blocks [place.first_block, place.end_block) of the model under the hypothesis on their input,
/// with the head if `with_head`, over the first `positions` of a sequence.
Explanation explain(const Model& model, const Candidate& candidate, const VerifyOptions& options,
                    const Budget& budget, const Hypothesis& hypothesis, const Place& place,
                    bool with_head, size_t sequence, size_t positions, Hook first);

}  // namespace sinkref
