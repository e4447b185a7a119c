#include "tokenizer/stream_decoder.h"

#include <algorithm>

#include "tokenizer/utf8.h"

namespace sinkref {

namespace {

constexpr std::string_view replacement = "\xEF\xBF\xBD";

/// Bytes that later tokens cannot change: all but a character that is not whole yet, or the up to
/// three replacement characters that a decoder may have put for its first bytes.
size_t certain(std::string_view text) {
  size_t end = text.size();
  for (size_t back = 1; back <= std::min<size_t>(3, text.size()); ++back) {
    const unsigned char first = static_cast<unsigned char>(text[text.size() - back]);
    if (first < 0x80) break;
    if (first < 0xC2 || first > 0xF4) continue;
    if (utf8_length(first) > back) end = text.size() - back;
    break;
  }
  for (size_t i = 0; i < 3 && text.substr(0, end).ends_with(replacement); ++i) end -= 3;
  return end;
}

}  // namespace

std::string text_of(const Tokenizer& tokenizer, std::vector<int> ids) {
  std::erase_if(ids, [&](int id) { return static_cast<size_t>(id) >= tokenizer.vocab_size(); });
  return tokenizer.decode(ids);
}

std::string StreamDecoder::push(int id) {
  ids_.push_back(id);
  const std::string text = text_of(tokenizer_, ids_);
  const size_t end = std::max(told_, certain(text));
  const std::string fresh = text.substr(told_, end - told_);
  told_ = end;
  // Tokenizers treat the start of a text in their own way: one token that has a text is a start
  // enough for the next. It must end with a whole character.
  const std::string own = text_of(tokenizer_, {id});
  if (end == text.size() && !own.empty() && certain(own) == own.size() && is_utf8(own)) {
    ids_ = {id};
    told_ = own.size();
  }
  return fresh;
}

std::string StreamDecoder::finish() {
  const std::string rest = text_of(tokenizer_, ids_).substr(told_);
  ids_.clear();
  told_ = 0;
  return rest;
}

}  // namespace sinkref
