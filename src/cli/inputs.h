#pragma once

#include <memory>
#include <vector>

#include "cli/output.h"
#include "cli/study_options.h"
#include "sinkref/model.h"
#include "sinkref/sink.h"
#include "sinkref/tokenizer.h"

namespace sinkref::cli {

/// The model of --model. Its notes go to stderr.
Model open_model(const Command& command);

/// The tokenizer of a checkpoint. Its notes go to stderr.
std::unique_ptr<Tokenizer> open_tokenizer(const Checkpoint& checkpoint);

/// Refuses an empty prompt.
void require_text(const std::string& text, const std::string& option);

/// The ids of a prompt. With `model`, a text that cannot fit its context is refused before it is tokenized. What is
/// to be noted goes to `notes`; what the text itself brings about, to stderr too.
std::vector<int> encode_text(const Tokenizer& tokenizer, BosPolicy bos, const std::string& text,
                             const std::string& option, const Model* model = nullptr,
                             std::vector<std::string>* notes = nullptr);

/// The token ids that --prompt, --prompt-file, --tokens or --tokens-file give: one list per
/// sequence. Exactly one of the four must be there. With `model`, a text that cannot fit its context
/// is refused before it is tokenized. Notes on the text's ids go to stderr and to `notes`.
std::vector<std::vector<int>> read_tokens(const TextCommand& options, const Checkpoint& checkpoint,
                                          const Model* model = nullptr,
                                          std::vector<std::string>* notes = nullptr);

/// The same for a command that takes one sequence: a batch is refused.
std::vector<int> read_one_sequence(const TextCommand& options, const Checkpoint& checkpoint);

/// What --patch auto looks at: the built-in text. Never the prompt: the patch belongs to the model,
/// and a prompt that is a long run is no ordinary text. Where ids are given to a model without a
/// tokenizer, ids from all over the vocabulary.
SinkInputs patch_inputs(const TextCommand& options, const Model& model);

/// The context holds so many new tokens; the last of them is chosen and not run. `option` is named in the refusal.
void require_room(const Model& model, size_t tokens, size_t new_tokens, const std::string& option);

RunOptions run_options(const RunningCommand& options);

/// --patch as neurons: parsed, or found by the sink analysis for "auto".
std::vector<Neurons> chosen_patch(const RunningCommand& options, const Model& model);
std::vector<Neurons> chosen_ablation(const RunningCommand& options, const Model& model);
std::vector<HookIntervention> chosen_interventions(const RunningCommand& options, const Model& model);

}  // namespace sinkref::cli
