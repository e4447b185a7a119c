#include "measure/page_context.h"

#include "base/json_file.h"
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

std::string PageContext::trace_command(const std::vector<int>& tokens,
                                       const std::string& hooks) const {
  // As --tokens reads them: runs as TOKENxTIMES.
  std::string ids;
  for (size_t i = 0; i < tokens.size();) {
    size_t end = i;
    while (end < tokens.size() && tokens[end] == tokens[i]) ++end;
    ids += (ids.empty() ? "" : ",") + std::to_string(tokens[i]);
    if (end - i > 1) ids += "x" + std::to_string(end - i);
    i = end;
  }
  return "sinkref trace --model " + model() + " --tokens " + ids + " --hooks '" + hooks +
         "' --out t.safetensors";
}

std::string PageContext::run_command(const std::string& condition, size_t word,
                                     const std::string& hooks) const {
  for (const Stimuli::Condition& c : stimuli().conditions)
    if (c.name == condition) {
      std::vector<int> tokens = c.prefix;
      tokens.insert(tokens.end(), c.repeats, stimuli().sink.words[word].token);
      return trace_command(tokens, hooks);
    }
  return "";
}

std::vector<Rule> norm_rules(const SinkLayer& sink) {
  return {{"first token", sink.norm_first, false},
          {"half-way", sink.fires_above(), false},
          {"typical", sink.norm_typical, false}};
}

}  // namespace sinkref
