#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "sinkref/tokenizer.h"
#include "tokenizer/added_tokens.h"
#include "tokenizer/pre_tokenizer.h"

namespace sinkref {

/// A byte-level BPE, wherever it was read from.
struct BpeModel {
  std::string name;                 ///< the file, for messages
  std::string flavour;              ///< "llama3", … or empty
  std::vector<std::string> tokens;  ///< by id, as in the file; an empty string is a hole
  /// The most wanted first; views of what the model was read from, which need only outlive the
  /// making of the tokenizer.
  std::vector<std::pair<std::string_view, std::string_view>> merges;
  std::vector<AddedToken> added;  ///< their ids are also in `tokens`
  size_t first_added_id = 0;      ///< one beyond the ids of the vocabulary proper
  PreTokenizer pre_tokenizer;
  bool ignore_merges = false;  ///< a piece that is a token is not merged from its bytes
  bool adds_bos = false;
  std::optional<int> bos, eos;
  std::vector<std::string> notes;  ///< for Tokenizer::notes
  std::optional<int> unknown;  ///< stands for a byte that has no token; none: it is left out
};

std::unique_ptr<Tokenizer> make_bpe_tokenizer(BpeModel model);

/// "Ġ t" as ("Ġ", "t"), views of `text`; InputError if it is not two parts.
std::pair<std::string_view, std::string_view> parse_merge(std::string_view text,
                                                          const std::string& name);

}  // namespace sinkref
