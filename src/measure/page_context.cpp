#include "measure/page_context.h"

#include <stdexcept>

#include "base/json_file.h"
#include "base/shell.h"
#include "tokenizer/stream_decoder.h"

namespace sinkref {

std::string PageContext::token_text(int id) const {
  const Tokenizer* tokenizer = stimuli().tokenizer.get();
  const bool has_text = tokenizer != nullptr && static_cast<size_t>(id) < tokenizer->vocab_size();
  return has_text ? "token \"" + tokenizer->decode(std::vector<int>{id}) + "\""
                  : "token #" + std::to_string(id);
}

std::string PageContext::text(const std::vector<int>& ids) const {
  if (stimuli().tokenizer) return valid_utf8(text_of(*stimuli().tokenizer, ids));  // a cut may fall inside a character
  std::string text;
  for (int id : ids) text += (text.empty() ? "#" : " #") + std::to_string(id);
  return text;
}

std::string PageContext::text_of_ids(const std::vector<int>& ids) const {
  return stimuli().tokenizer ? "\"" + text(ids) + "\"" : "as they were given";
}

std::string PageContext::report_command(const std::string& more) const {
  const Request& request = experiment.request;
  return request.program + " report --model " + request.model + request.inputs + request.patch +
         request.report_only + more + " --out DIR";
}

std::string PageContext::study_command(const std::string& command, const std::string& more) const {
  const Request& request = experiment.request;
  return request.program + " " + command + " --model " + request.model + request.inputs +
         (command == "sink" ? request.patch : "") + more + " --json";
}

namespace {

/// As --tokens reads them: runs as TOKENxTIMES.
std::string ids_text(const std::vector<int>& tokens) {
  std::string ids;
  for (size_t i = 0; i < tokens.size();) {
    size_t end = i;
    while (end < tokens.size() && tokens[end] == tokens[i]) ++end;
    ids += (ids.empty() ? "" : ",") + std::to_string(tokens[i]);
    if (end - i > 1) ids += "x" + std::to_string(end - i);
    i = end;
  }
  return ids;
}

}  // namespace

std::string PageContext::trace_command(const std::vector<int>& tokens,
                                       const std::string& hooks) const {
  return model_command("trace", tokens, " --hooks " + shell_quoted(hooks) + " --out t.safetensors");
}

std::string PageContext::model_command(const std::string& command, const std::vector<int>& tokens,
                                       const std::string& more) const {
  const Request& request = experiment.request;
  // The other settings of a study are those of its words.
  const std::string softmax = experiment.run.softmax == Softmax::one ? " --softmax one" : "";
  const std::string kernel = experiment.run.kernel == "openblas" ? " --kernel openblas" : "";
  return request.program + " " + command + " --model " + request.model + " --tokens " + ids_text(tokens) +
         softmax + kernel + more;
}

std::vector<int> PageContext::run_tokens(const std::string& condition, size_t word) const {
  for (const Stimuli::Condition& c : stimuli().conditions)
    if (c.name == condition) {
      std::vector<int> tokens = c.prefix;
      tokens.insert(tokens.end(), c.repeats, stimuli().sink.words[word].token);
      return tokens;
    }
  throw std::logic_error("no condition is called " + condition);
}

std::string PageContext::run_command(const std::string& condition, size_t word,
                                     const std::string& hooks) const {
  return trace_command(run_tokens(condition, word), hooks);
}

std::string PageContext::run_input(const std::string& condition, size_t word) const {
  for (const Stimuli::Condition& c : stimuli().conditions)
    if (c.name == condition)
      return (c.prefix.empty() ? "" : "\"" + text(c.prefix) + "\" and then ") + std::to_string(c.repeats) +
             " times " + token_text(stimuli().sink.words[word].token);
  throw std::logic_error("no condition is called " + condition);
}

std::string after_text(const std::string& condition) {
  return condition == "nothing" ? "with nothing before it" : "after " + condition;
}

std::vector<Rule> norm_rules(const SinkLayer& sink) {
  return {{"first token", sink.norm_first, false},
          {"half-way", sink.fires_above(), false},
          {"typical", sink.norm_typical, false}};
}

}  // namespace sinkref
