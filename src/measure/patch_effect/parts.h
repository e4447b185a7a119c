#pragma once

#include "measure/patch_effect/patch_effect.h"

namespace sinkref {

RunEffects measure_run(const Model& model, const RunOptions& options,
                       const PatchEffectInputs& inputs, const PatchEffectInputs::Run& run,
                       Progress& progress);

/// Fills `pieces`, `predicted` and `text`.
void measure_text(const Model& model, const RunOptions& options, const PatchEffectInputs& inputs,
                  Progress& progress, PatchEffect& effect);

/// log-softmax in double.
std::vector<double> log_probabilities(const float* logits, size_t n);

/// Σ p (log p - log q), 0 · log 0 = 0.
double divergence(const std::vector<double>& log_p, const std::vector<double>& log_q);

}  // namespace sinkref
