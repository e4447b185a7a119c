#pragma once

#include <memory>
#include <vector>

#include "cli/output.h"
#include "cli/study_options.h"
#include "sinkref/model.h"
#include "measure/report.h"
#include "sinkref/tokenizer.h"

namespace sinkref::cli {

/// The token ids that --prompt, --prompt-file, --tokens or --tokens-file give: one list per
/// sequence. Exactly one of the four must be there.
std::vector<std::vector<int>> read_tokens(const TextCommand& options, const Checkpoint& checkpoint);

/// The same for a command that takes one sequence: a batch is refused.
std::vector<int> read_one_sequence(const TextCommand& options, const Checkpoint& checkpoint);

/// What --patch auto looks at: the built-in text. Never the prompt: the patch belongs to the model,
/// and a prompt that is a long run is no ordinary text. Where ids are given to a model without a
/// tokenizer, ids from all over the vocabulary.
SinkInputs patch_inputs(const TextCommand& options, const Model& model);

/// What sink and report run on: built-in text and words (or --word, --prefix), or, for a model
/// without a tokenizer, the ids of --tokens or --tokens-file. Every condition and the samples of
/// the sink metric. Repeats that were not asked for are cut to what the model's context holds, and
/// `say` tells; ones that were and do not fit are an InputError.
ReportInputs report_inputs(const StudyCommand& options, const Model& model);

/// The same without conditions and samples: the sink analysis alone.
SinkInputs sink_inputs(const StudyCommand& options, const Model& model, size_t repeats);

RunOptions run_options(const RunningCommand& options);

/// --patch as neurons: parsed, or found by the sink analysis for "auto".
std::vector<Neurons> chosen_patch(const RunningCommand& options, const Model& model);
std::vector<Neurons> chosen_ablation(const RunningCommand& options, const Model& model);

}  // namespace sinkref::cli
