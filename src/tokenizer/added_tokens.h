#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace sinkref {

/// A token recognised in the text before the vocabulary is asked ("<|im_start|>").
struct AddedToken {
  int id = 0;
  std::string content;
  bool lstrip = false;      ///< it also takes the white space before it
  bool rstrip = false;      ///< … and after it
  bool normalized = false;  ///< looked for after all that are not (there is no normaliser here)
};

/// Ordinary text (id -1) or one added token.
struct Segment {
  std::string_view text;
  int id = -1;
};

/// Cuts a text at its added tokens: leftmost first, of those the longest, like Hugging Face's
/// tokenizers. Linear in the text for the usual few tokens per first byte.
class AddedTokens {
 public:
  AddedTokens() = default;
  explicit AddedTokens(std::vector<AddedToken> tokens);

  std::vector<Segment> split(std::string_view text) const;
  bool empty() const { return tokens_.empty(); }

 private:
  const AddedToken* match(std::string_view text, bool normalized) const;
  void split_at(Segment segment, bool normalized, std::vector<Segment>& out) const;

  std::vector<AddedToken> tokens_;
  std::vector<std::vector<size_t>> by_first_byte_;  // longest first
};

}  // namespace sinkref
