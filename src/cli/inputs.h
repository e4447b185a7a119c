#pragma once

#include <memory>
#include <vector>

#include "cli/options.h"
#include "sinkref/model.h"
#include "sinkref/sink.h"
#include "sinkref/tokenizer.h"

namespace sinkref::cli {

/// The token ids that --prompt, --prompt-file, --tokens or --tokens-file give: one list per
/// sequence. Exactly one of the four must be there.
std::vector<std::vector<int>> read_tokens(const Options& options, const Checkpoint& checkpoint);

/// The same for a command that takes one sequence: a batch is refused.
std::vector<int> read_one_sequence(const Options& options, const Checkpoint& checkpoint);

/// What --patch auto looks at: the built-in text. Never the prompt: the patch belongs to the model,
/// and a prompt that is a long run is no ordinary text. Where ids are given to a model without a
/// tokenizer, ids from all over the vocabulary.
SinkInputs patch_inputs(const Options& options, const Model& model);

RunOptions run_options(const Options& options);

/// --patch as neurons: parsed, or found by the sink analysis for "auto".
std::vector<Neurons> chosen_patch(const Options& options, const Model& model);
std::vector<Neurons> chosen_ablation(const Options& options, const Model& model);

/// Progress on stderr, only where a person looks.
void say(const std::string& text);

}  // namespace sinkref::cli
