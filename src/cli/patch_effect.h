#pragma once

#include "cli/options.h"
#include "measure/patch_effect/patch_effect.h"
#include "measure/report.h"

namespace sinkref::cli {

/// The runs of the first condition that set off a sink (at most two), a cluster attack, and the built-in
/// text; for a
/// model without a tokenizer the text is the ids of --tokens.
PatchEffectInputs patch_effect_inputs(const Options& options, const Model& model,
                                      const ReportInputs& inputs, const Report& found);

void print_patch_effect(const PatchEffect& effect, const Model& model);

}  // namespace sinkref::cli
