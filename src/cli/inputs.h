#pragma once

#include <memory>
#include <vector>

#include "cli/options.h"
#include "sinkref/model.h"
#include "measure/report.h"
#include "sinkref/tokenizer.h"

namespace sinkref::cli {

/// The model of --model. Its notes go to stderr.
Model open_model(const Options& options);

/// The tokenizer of a checkpoint. Its notes go to stderr.
std::unique_ptr<Tokenizer> open_tokenizer(const Checkpoint& checkpoint);

/// The token ids that --prompt, --prompt-file, --tokens or --tokens-file give: one list per
/// sequence. Exactly one of the four must be there. With `model`, a text that cannot fit its context
/// is refused before it is tokenized. Notes on the text's ids go to stderr and to `notes`.
std::vector<std::vector<int>> read_tokens(const Options& options, const Checkpoint& checkpoint,
                                          const Model* model = nullptr,
                                          std::vector<std::string>* notes = nullptr);

/// The same for a command that takes one sequence: a batch is refused.
std::vector<int> read_one_sequence(const Options& options, const Checkpoint& checkpoint);

/// What --patch auto looks at: the built-in text. Never the prompt: the patch belongs to the model,
/// and a prompt that is a long run is no ordinary text. Where ids are given to a model without a
/// tokenizer, ids from all over the vocabulary.
SinkInputs patch_inputs(const Options& options, const Model& model);

/// What sink and report run on: built-in text and words (or --word, --prefix), or, for a model
/// without a tokenizer, the ids of --tokens or --tokens-file. Every condition and the samples of
/// the sink metric. Repeats that were not asked for are cut to what the model's context holds, and
/// `say` tells; ones that were and do not fit are an InputError.
ReportInputs report_inputs(const Options& options, const Model& model);

/// The same without conditions and samples: the sink analysis alone.
SinkInputs sink_inputs(const Options& options, const Model& model, size_t repeats);

RunOptions run_options(const Options& options);

/// --patch as neurons: parsed, or found by the sink analysis for "auto".
std::vector<Neurons> chosen_patch(const Options& options, const Model& model);
std::vector<Neurons> chosen_ablation(const Options& options, const Model& model);

/// Progress on stderr, only where a person looks.
void say(const std::string& text);

}  // namespace sinkref::cli
