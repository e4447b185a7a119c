#pragma once

#include <string>

#include "base/json_file.h"
#include "sinkref/tokenizer.h"

namespace sinkref {

/// What a table calls a token: its text, the piece where it has none ("<|bos|>"), the number beyond the vocabulary.
inline std::string token_name(const Tokenizer& tokenizer, size_t id) {
  if (id >= tokenizer.vocab_size()) return std::to_string(id);
  const int one[] = {static_cast<int>(id)};
  const std::string text = tokenizer.decode(one);
  return text.empty() ? tokenizer.piece(one[0]) : valid_utf8(text);
}

}  // namespace sinkref
