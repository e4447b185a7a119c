#pragma once

#include <string>
#include <vector>

#include "sinkref/tokenizer.h"

namespace sinkref {

/// What `ids` read as. A model's vocabulary may be padded beyond its tokenizer's: such ids have no
/// text.
std::string text_of(const Tokenizer& tokenizer, std::vector<int> ids);

/// The same text in the parts that become certain as one id after another arrives: put together, all
/// of push() and finish() are text_of() all ids. A token may end inside a character, which waits.
class StreamDecoder {
 public:
  explicit StreamDecoder(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}
  std::string push(int id);
  std::string finish();

 private:
  const Tokenizer& tokenizer_;
  std::vector<int> ids_;  ///< as far back as the text of the next one can depend on them
  size_t told_ = 0;       ///< bytes of their text that have been returned
};

}  // namespace sinkref
