#include "cli/inputs.h"

#include <unistd.h>

#include <algorithm>
#include <iostream>

#include "base/json_file.h"
#include "cli/ids.h"
#include "sinkref/error.h"

namespace sinkref::cli {

namespace {

void say_notes(const std::vector<std::string>& notes) {
  for (const std::string& note : notes) say("note: " + note);
}

void check_length(const Tokenizer& tokenizer, const std::string& text, const std::string& option,
                  const Model& model) {
  const size_t least = tokenizer.least_ids(text), most = model.config().max_positions;
  if (least > most)
    refuse(option,
           "the prompt's " + std::to_string(text.size()) + " bytes are at least " +
               std::to_string(least) + " tokens, expected at most the model's " +
               std::to_string(most),
           "shorten it");
}

std::vector<std::vector<int>> encode_prompt(const TextCommand& options, const Checkpoint& checkpoint,
                                            const std::string& text, const std::string& option,
                                            const Model* model, std::vector<std::string>* notes) {
  require_text(text, option);
  return {encode_text(*open_tokenizer(checkpoint), options.bos, text, option, model, notes)};
}

}  // namespace

void require_text(const std::string& text, const std::string& option) {
  if (text.empty())
    refuse(option, "the prompt is empty, expected some text",
           "sinkref tokenize shows what no text becomes");
}

std::vector<int> encode_text(const Tokenizer& tokenizer, BosPolicy bos, const std::string& text,
                             const std::string& option, const Model* model, std::vector<std::string>* notes) {
  if (model != nullptr) check_length(tokenizer, text, option, *model);
  std::vector<int> ids = tokenizer.encode(text, bos);
  std::vector<std::string> all = tokenizer.notes();
  if (ids.size() > 1 && ids[0] == ids[1] && ids[0] == tokenizer.bos_id()) {
    all.push_back("The prompt starts with BOS twice: the text has it, and the tokenizer adds one.");
    say_notes({all.back()});
  }
  if (notes != nullptr) *notes = std::move(all);
  return ids;
}

Model open_model(const Command& command) {
  Model model = Model::open(command.model);
  say_notes(model.config().notes);
  return model;
}

std::unique_ptr<Tokenizer> open_tokenizer(const Checkpoint& checkpoint) {
  std::unique_ptr<Tokenizer> tokenizer = Tokenizer::open(checkpoint);
  say_notes(tokenizer->notes());
  return tokenizer;
}

std::vector<std::vector<int>> read_tokens(const TextCommand& o, const Checkpoint& checkpoint,
                                          const Model* model, std::vector<std::string>* notes) {
  const int given = o.prompt.has_value() + o.prompt_file.has_value() + o.tokens.has_value() +
                    o.tokens_file.has_value();
  if (given != 1)
    refuse("prompt", "found " + std::to_string(given) + ", expected exactly one",
           "give one of --prompt, --prompt-file, --tokens, --tokens-file");
  if (o.tokens) return {parse_ids(*o.tokens, "--tokens")};
  if (o.tokens_file) return read_ids_file(*o.tokens_file);
  if (o.prompt) return encode_prompt(o, checkpoint, *o.prompt, "--prompt", model, notes);
  return encode_prompt(o, checkpoint, read_text_file(*o.prompt_file), *o.prompt_file, model, notes);
}

std::vector<int> read_one_sequence(const TextCommand& o, const Checkpoint& checkpoint) {
  std::vector<std::vector<int>> batch = read_tokens(o, checkpoint);
  if (batch.size() != 1)
    refuse(*o.tokens_file, "holds " + std::to_string(batch.size()) + " sequences, expected one",
           "give this command one list of ids");
  return std::move(batch[0]);
}

void require_room(const Model& model, size_t tokens, size_t new_tokens, const std::string& option) {
  const size_t most = model.config().max_positions;
  if (tokens + new_tokens > most + 1)
    throw InputError(option + " " + std::to_string(new_tokens) + " after " + std::to_string(tokens) +
                     " tokens passes the model's limit of " + std::to_string(most) + "; ask for fewer");
}

RunOptions run_options(const RunningCommand& options) {
  RunOptions run;
  run.kernel = options.kernel;
  run.chunk = options.chunk;
  run.softmax = options.softmax;
  return run;
}

std::vector<Neurons> chosen_patch(const RunningCommand& options, const Model& model) {
  if (options.patch == "none") return {};
  if (options.patch != "auto") return parse_neurons(options.patch, "--patch", model.config());
  const SinkInputs inputs = patch_inputs(options, model);
  const RunOptions run = run_options(options);
  const std::vector<Neurons> found =
      neurons_of(find_sinks(model, run, inputs, measure_norms(model, run, inputs)));
  say("patch: " + neurons_text(found) + (found.empty() ? " (this model has no sink)" : ""));
  return found;
}

std::vector<Neurons> chosen_ablation(const RunningCommand& options, const Model& model) {
  if (options.ablate == "none") return {};
  return parse_neurons(options.ablate, "--ablate", model.config());
}

std::vector<HookIntervention> chosen_interventions(const RunningCommand& options, const Model& model) {
  if (options.intervene == "none") return {};
  return parse_interventions(options.intervene, "--intervene", model.config());
}

}  // namespace sinkref::cli
