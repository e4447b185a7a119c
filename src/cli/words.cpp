#include "cli/words.h"

#include <utility>

#include "cli/ids.h"
#include "cli/inputs.h"
#include "sinkref/error.h"
#include "tokenizer/token_name.h"

namespace sinkref::cli {

const Tokenizer& Words::tokenizer() {
  if (!tokenizer_) tokenizer_ = Tokenizer::open(model_.checkpoint());
  return *tokenizer_;
}

std::vector<int> Words::prompt(const std::optional<std::string>& text, const std::optional<std::string>& ids,
                               const std::string& option) {
  if (text.has_value() == ids.has_value())
    refuse("--" + option, text ? "found --" + option + "-tokens too, expected one of them" : "is missing, expected a prompt",
           "give --" + option + " TEXT or --" + option + "-tokens IDS");
  std::vector<int> all;
  if (ids) {
    all = parse_ids(*ids, "--" + option + "-tokens");
  } else {
    require_text(*text, "--" + option);
    if (!std::exchange(notes_said_, true))
      for (const std::string& note : tokenizer().notes()) say("note: " + note);
    all = encode_text(tokenizer(), options_.bos, *text, "--" + option, &model_);
  }
  check_tokens(model_, all);
  return all;
}

std::optional<size_t> Words::token(const std::optional<std::string>& text, std::optional<size_t> id,
                                   const std::string& option) {
  const size_t vocabulary = model_.config().vocab_size;
  if (text && id)
    refuse("--" + option, "found --" + option + "-token too, expected one of them", "leave one out");
  if (id && *id >= vocabulary)
    refuse("--" + option + "-token", "there is no token " + std::to_string(*id) + ", expected 0 to " +
           std::to_string(vocabulary - 1), "sinkref tokenize shows the ids of a text");
  if (!text) return id;
  const std::vector<int> ids = tokenizer().encode(*text, BosPolicy::off);
  if (ids.size() != 1)
    refuse("--" + option + " " + quoted(*text), "is " + std::to_string(ids.size()) + " tokens, expected one",
           "mind the blank before a word, or give --" + option + "-token ID");
  return static_cast<size_t>(ids[0]);
}

std::string Words::name(size_t id) {
  if (!has_none_) {
    try {
      return token_name(tokenizer(), id);
    } catch (const InputError&) {
      has_none_ = true;
    }
  }
  return std::to_string(id);
}

std::string in_columns(const std::string& name, size_t columns) {
  std::string text = quoted(name);
  size_t used = 0, end = 0;
  for (; end < text.size(); ++end) {
    const bool begins = (static_cast<unsigned char>(text[end]) & 0xc0) != 0x80;
    if (begins && used == columns) break;
    used += begins;
  }
  text.erase(end);
  return text + std::string(columns - used, ' ');
}

}  // namespace sinkref::cli
