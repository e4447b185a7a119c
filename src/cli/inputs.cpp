#include "cli/inputs.h"

#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <iostream>
#include <nlohmann/json.hpp>

#include "checkpoint/json_file.h"
#include "sinkref/error.h"

namespace sinkref::cli {

namespace {

int one_id(std::string_view text, const std::string& option) {
  int value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || text.empty() || value < 0)
    throw InputError(option + ": " + quoted(std::string(text)) +
                     " is not a token id; expected whole numbers as 1,2,3");
  return value;
}

/// "1,2,5x100"
std::vector<int> parse_ids(const std::string& text, const std::string& option) {
  std::vector<int> ids;
  if (text.empty()) throw InputError(option + ": is empty; expected at least one token id");
  for (size_t begin = 0; begin <= text.size();) {
    const size_t comma = std::min(text.find(',', begin), text.size());
    const std::string_view part = std::string_view(text).substr(begin, comma - begin);
    const size_t times = part.find('x');
    const int id = one_id(part.substr(0, times), option);
    const std::string_view repeats =
        times == std::string_view::npos ? "1" : part.substr(times + 1);
    int count = 0;
    const auto [end, error] =
        std::from_chars(repeats.data(), repeats.data() + repeats.size(), count);
    if (error != std::errc() || end != repeats.data() + repeats.size() || count < 1 ||
        count > 1'000'000)
      throw InputError(option + ": " + quoted(std::string(part)) +
                       " is not a repeated token; expected TOKENxTIMES with 1 to 1000000 times");
    if (part.starts_with("0x"))
      throw InputError(option + ": " + quoted(std::string(part)) +
                       " looks hexadecimal; expected decimal ids (token 0 is repeated as 0,0,0)");
    ids.insert(ids.end(), static_cast<size_t>(count), id);
    begin = comma + 1;
  }
  return ids;
}

std::vector<int> json_ids(const nlohmann::json& list, const std::string& file) {
  std::vector<int> ids;
  if (list.empty()) throw InputError(file + ": holds an empty list; expected token ids");
  for (const nlohmann::json& id : list) {
    if (!id.is_number_integer() || id < 0 || id > 2147483647)
      throw InputError(file + ": holds " + quoted(id.dump().substr(0, 40)) +
                       ", expected token ids (whole numbers from 0)");
    ids.push_back(id.get<int>());
  }
  return ids;
}

std::vector<std::vector<int>> read_ids_file(const std::string& file) {
  const nlohmann::json list = read_json_file(file);
  if (!list.is_array() || list.empty())
    throw InputError(file + ": expected a JSON list of token ids, or a list of such lists");
  if (!list[0].is_array()) return {json_ids(list, file)};
  std::vector<std::vector<int>> batch;
  for (const nlohmann::json& sequence : list) {
    if (!sequence.is_array())
      throw InputError(file + ": mixes token ids and lists; expected one or the other");
    batch.push_back(json_ids(sequence, file));
  }
  return batch;
}

std::vector<std::vector<int>> encode_prompt(const Options& options, const Checkpoint& checkpoint,
                                            const std::string& text, const std::string& option) {
  if (text.empty()) throw InputError(option + ": the prompt is empty; expected some text");
  return {Tokenizer::open(checkpoint)->encode(text, options.bos)};
}

}  // namespace

std::vector<std::vector<int>> read_tokens(const Options& o, const Checkpoint& checkpoint) {
  const int given = o.prompt.has_value() + o.prompt_file.has_value() + o.tokens.has_value() +
                    o.tokens_file.has_value();
  if (given != 1)
    throw InputError("expected exactly one of --prompt, --prompt-file, --tokens, --tokens-file; "
                     "found " + std::to_string(given));
  if (o.tokens) return {parse_ids(*o.tokens, "--tokens")};
  if (o.tokens_file) return read_ids_file(*o.tokens_file);
  if (o.prompt) return encode_prompt(o, checkpoint, *o.prompt, "--prompt");
  return encode_prompt(o, checkpoint, read_text_file(*o.prompt_file), *o.prompt_file);
}

std::vector<int> read_one_sequence(const Options& o, const Checkpoint& checkpoint) {
  std::vector<std::vector<int>> batch = read_tokens(o, checkpoint);
  if (batch.size() != 1)
    throw InputError("--tokens-file: holds " + std::to_string(batch.size()) +
                     " sequences; this command takes one");
  return std::move(batch[0]);
}

RunOptions run_options(const Options& options) {
  RunOptions run;
  run.kernel = options.kernel;
  run.chunk = options.chunk;
  run.softmax = options.softmax;
  return run;
}

std::vector<Neurons> chosen_patch(const Options& options, const Model& model) {
  if (options.patch == "none") return {};
  if (options.patch != "auto") return parse_neurons(options.patch, "--patch", model.config());
  const SinkInputs inputs = patch_inputs(options, model);
  const RunOptions run = run_options(options);
  const std::vector<Neurons> found =
      neurons_of(find_sinks(model, run, inputs, measure_norms(model, run, inputs)));
  say("patch: " + neurons_text(found) + (found.empty() ? " (this model has no sink)" : ""));
  return found;
}

std::vector<Neurons> chosen_ablation(const Options& options, const Model& model) {
  if (options.ablate == "none") return {};
  return parse_neurons(options.ablate, "--ablate", model.config());
}

void say(const std::string& text) { std::cerr << text << '\n'; }

}  // namespace sinkref::cli
