// From an item to token sequences, as lm-eval's TemplateLM.loglikelihood and _encode_pair do it.

#include <algorithm>

#include "sinkref/error.h"
#include "eval/eval.h"

namespace sinkref {

namespace {

/// White space at the end of Python's str.rstrip(), as UTF-8.
constexpr std::string_view blanks[] = {
    "\t",     "\n",     "\v",     "\f",     "\r",     "\x1c",   "\x1d",   "\x1e",
    "\x1f",   " ",      "\u0085", "\u00a0", "\u1680", "\u2000", "\u2001", "\u2002",
    "\u2003", "\u2004", "\u2005", "\u2006", "\u2007", "\u2008", "\u2009", "\u200a",
    "\u2028", "\u2029", "\u202f", "\u205f", "\u3000"};

size_t length_without_blanks(std::string_view text) {
  for (bool found = true; found;) {
    found = false;
    for (std::string_view blank : blanks)
      if (text.ends_with(blank)) {
        text.remove_suffix(blank.size());
        found = true;
      }
  }
  return text.size();
}

int first_token(const Tokenizer& tokenizer, const EvalItem& item) {
  if (tokenizer.bos_id()) return *tokenizer.bos_id();
  if (tokenizer.eos_id()) return *tokenizer.eos_id();
  throw InputError(item.where + ": the context is empty and the tokenizer has no BOS or EOS to put "
                   "in its place");
}

EvalRequest after_no_context(const EvalItem& item, const std::string& choice,
                             const Tokenizer& tokenizer) {
  const int first = first_token(tokenizer, item);
  EvalRequest request{tokenizer.encode(choice, BosPolicy::off), 1};
  if (request.tokens.empty() || request.tokens[0] != first)
    request.tokens.insert(request.tokens.begin(), first);
  return request;
}

/// A text that begins with BOS by itself gets no second one.
std::vector<int> encode_once(const std::string& text, const Tokenizer& tokenizer, BosPolicy bos) {
  std::vector<int> ids = tokenizer.encode(text, bos);
  const std::optional<int> first = tokenizer.bos_id();
  const bool twice = first && ids.size() > 1 && ids[0] == *first && ids[1] == *first;
  if (twice && bos != BosPolicy::off && (bos == BosPolicy::on || tokenizer.adds_bos())) ids.erase(ids.begin());
  return ids;
}

EvalRequest after_context(std::vector<int> context, const std::string& whole,
                          const Tokenizer& tokenizer, BosPolicy bos) {
  const std::vector<int> all = encode_once(whole, tokenizer, bos);
  EvalRequest request{std::move(context), 0};
  request.from = request.tokens.size();
  if (all.size() > request.from)
    request.tokens.insert(request.tokens.end(), all.begin() + static_cast<long>(request.from),
                          all.end());
  return request;
}

/// Keeps the last max_positions + 1 tokens.
void shorten(const EvalItem& item, size_t choice, size_t max_positions, EvalRequest& request) {
  const size_t length = request.tokens.size() - request.from;
  const std::string name = item.where + ": choice " + std::to_string(choice);
  if (length == 0)
    throw InputError(name + " " + quoted(item.choices[choice]) + " has no token of its own");
  if (length > max_positions)
    throw InputError(name + " is " + std::to_string(length) + " tokens long, the model's limit is " +
                     std::to_string(max_positions));
  if (request.tokens.size() <= max_positions + 1) return;
  const size_t dropped = request.tokens.size() - (max_positions + 1);
  request.tokens.erase(request.tokens.begin(),
                       request.tokens.begin() + static_cast<long>(dropped));
  request.from -= dropped;
  request.truncated = dropped;
}

/// A text so far beyond the context that hardly any of it would count is not worth its tokens.
void require_some_use(const EvalItem& item, const std::string& text, size_t max_positions) {
  constexpr size_t bytes_per_position = 1024;
  if (text.size() / bytes_per_position > max_positions)
    throw InputError(item.where + ": a text of " + std::to_string(text.size()) + " bytes is more than " +
                     std::to_string(bytes_per_position) + " for each of the model's " +
                     std::to_string(max_positions) + " positions");
}

}  // namespace

std::vector<EvalRequest> encode_item(const EvalItem& item, const Tokenizer& tokenizer,
                                     BosPolicy bos, size_t max_positions) {
  std::vector<EvalRequest> requests;
  std::vector<int> context;
  for (size_t choice = 0; choice < item.choices.size(); ++choice) {
    const std::string& text = item.context_of(choice);
    for (const std::string* part : {&text, &item.choices[choice]})
      require_some_use(item, *part, max_positions);
    if (text.empty()) {
      requests.push_back(after_no_context(item, item.choices[choice], tokenizer));
    } else {
      if (choice == 0 || !item.contexts.empty())
        context = encode_once(text.substr(0, length_without_blanks(text)), tokenizer, bos);
      if (context.empty())
        throw InputError(item.where + ": the context " + quoted(text) + " has no tokens");
      requests.push_back(after_context(context, text + item.choices[choice], tokenizer, bos));
    }
    shorten(item, choice, max_positions, requests.back());
  }
  return requests;
}

}  // namespace sinkref
