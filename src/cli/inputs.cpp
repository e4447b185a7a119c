#include "cli/inputs.h"

#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <iostream>
#include <nlohmann/json.hpp>

#include "base/json_file.h"
#include "sinkref/error.h"

namespace sinkref::cli {

namespace {

int one_id(std::string_view text, const std::string& option) {
  int value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || text.empty() || value < 0)
    refuse(option, quoted(std::string(text)) + " is not a token id, expected 0 to 2147483647",
           "give whole numbers as 1,2,3");
  return value;
}

/// "1,2,5x100"
std::vector<int> parse_ids(const std::string& text, const std::string& option) {
  std::vector<int> ids;
  if (text.empty())
    refuse(option, "is empty, expected at least one token id", "give whole numbers as 1,2,3");
  for (size_t begin = 0; begin <= text.size();) {
    const size_t comma = std::min(text.find(',', begin), text.size());
    const std::string_view part = std::string_view(text).substr(begin, comma - begin);
    const size_t times = part.find('x');
    const int id = one_id(part.substr(0, times), option);
    const std::string_view repeats = times == std::string_view::npos ? "1" : part.substr(times + 1);
    int count = 0;
    const auto [end, error] =
        std::from_chars(repeats.data(), repeats.data() + repeats.size(), count);
    if (error != std::errc() || end != repeats.data() + repeats.size() || count < 1 ||
        count > 1'000'000)
      refuse(option,
             quoted(std::string(part)) + " is not a repeated token, expected 1 to 1000000 times",
             "give it as TOKENxTIMES, as 5x100");
    if (part.starts_with("0x"))
      refuse(option, quoted(std::string(part)) + " looks hexadecimal, expected decimal ids",
             "token 0 is repeated as 0,0,0");
    constexpr size_t most = 10'000'000;
    if (ids.size() + static_cast<size_t>(count) > most)
      refuse(option, "holds more tokens, expected at most " + std::to_string(most), "shorten it");
    ids.insert(ids.end(), static_cast<size_t>(count), id);
    begin = comma + 1;
  }
  return ids;
}

constexpr const char* list_remedy = "give a JSON list of whole numbers, or a list of such lists";

std::vector<int> json_ids(const nlohmann::json& list, const std::string& file) {
  std::vector<int> ids;
  if (list.empty()) refuse(file, "holds an empty list, expected token ids", list_remedy);
  for (const nlohmann::json& id : list) {
    if (!id.is_number_integer() || id < 0 || id > 2147483647)
      refuse(file, "holds " + quoted(id.dump().substr(0, 40)) + ", expected token ids",
             list_remedy);
    ids.push_back(id.get<int>());
  }
  return ids;
}

std::vector<std::vector<int>> read_ids_file(const std::string& file) {
  const nlohmann::json list = read_json_file(file);
  if (!list.is_array() || list.empty())
    refuse(file,
           std::string("holds JSON of type ") + list.type_name() + (list.empty() ? ", empty" : "") +
               ", expected token ids",
           list_remedy);
  if (!list[0].is_array()) return {json_ids(list, file)};
  std::vector<std::vector<int>> batch;
  for (const nlohmann::json& sequence : list) {
    if (!sequence.is_array())
      refuse(file, "mixes token ids and lists, expected one or the other", list_remedy);
    batch.push_back(json_ids(sequence, file));
  }
  return batch;
}

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
  if (text.empty())
    refuse(option, "the prompt is empty, expected some text",
           "sinkref tokenize shows what no text becomes");
  const std::unique_ptr<Tokenizer> tokenizer = open_tokenizer(checkpoint);
  if (model != nullptr) check_length(*tokenizer, text, option, *model);
  std::vector<int> ids = tokenizer->encode(text, options.bos);
  std::vector<std::string> all = tokenizer->notes();
  if (ids.size() > 1 && ids[0] == ids[1] && ids[0] == tokenizer->bos_id()) {
    all.push_back("The prompt starts with BOS twice: the text has it, and the tokenizer adds one.");
    say_notes({all.back()});
  }
  if (notes != nullptr) *notes = std::move(all);
  return {std::move(ids)};
}

}  // namespace

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
