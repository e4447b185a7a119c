#pragma once

#include "cli/study_options.h"
#include "measure/experiment.h"

namespace sinkref::cli {

/// What `sink`, `first-layer` and `report` run: built-in text and words (or --word, --prefix), or the
/// ids of --tokens or --tokens-file. Percent and time left go to stderr.
Experiment experiment_for(const StudyCommand& options, const Model& model, size_t repeats);

/// The same with --patch. Repeats that were not asked for are cut to what the model's context holds, and `say` tells.
Experiment sink_experiment(const StudyCommand& options, const Model& model);

}  // namespace sinkref::cli
