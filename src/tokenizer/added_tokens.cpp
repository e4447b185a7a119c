#include "tokenizer/added_tokens.h"

#include <algorithm>

#include "tokenizer/utf8.h"

namespace sinkref {

namespace {
size_t white_space_at_start(std::string_view text) {
  size_t at = 0;
  while (at < text.size() && is_white_space(first_character(text.substr(at))))
    at += utf8_length(static_cast<unsigned char>(text[at]));
  return at;
}

size_t without_white_space_at_end(std::string_view text) {
  size_t end = text.size();
  while (end > 0) {
    size_t start = end - 1;
    while ((static_cast<unsigned char>(text[start]) & 0xC0) == 0x80) --start;
    if (!is_white_space(first_character(text.substr(start)))) break;
    end = start;
  }
  return end;
}
}  // namespace

AddedTokens::AddedTokens(std::vector<AddedToken> tokens)
    : tokens_(std::move(tokens)), by_first_byte_(256) {
  std::stable_sort(tokens_.begin(), tokens_.end(), [](const auto& a, const auto& b) {
    return a.content.size() > b.content.size();
  });
  for (size_t i = 0; i < tokens_.size(); ++i)
    by_first_byte_[static_cast<unsigned char>(tokens_[i].content[0])].push_back(i);
}

const AddedToken* AddedTokens::match(std::string_view text, bool normalized) const {
  for (size_t i : by_first_byte_[static_cast<unsigned char>(text[0])])
    if (tokens_[i].normalized == normalized && text.starts_with(tokens_[i].content))
      return &tokens_[i];
  return nullptr;
}

void AddedTokens::split_at(Segment segment, bool normalized, std::vector<Segment>& out) const {
  const std::string_view text = segment.text;
  size_t done = 0;
  auto add_text_until = [&](size_t end) {
    if (end > done) out.push_back({text.substr(done, end - done)});
  };
  for (size_t at = 0; at < text.size();) {
    const AddedToken* token = match(text.substr(at), normalized);
    if (token == nullptr) {
      ++at;
      continue;
    }
    size_t start = at, end = at + token->content.size();
    if (token->lstrip) start = std::max(done, without_white_space_at_end(text.substr(0, start)));
    if (token->rstrip) end += white_space_at_start(text.substr(end));
    add_text_until(start);
    out.push_back({text.substr(start, end - start), token->id});
    done = at = end;
  }
  add_text_until(text.size());
}

std::vector<Segment> AddedTokens::split(std::string_view text) const {
  std::vector<Segment> segments;
  if (!text.empty()) segments.push_back({text});
  if (tokens_.empty()) return segments;
  for (bool normalized : {false, true}) {
    std::vector<Segment> finer;
    for (const Segment& segment : segments) {
      if (segment.id >= 0)
        finer.push_back(segment);
      else
        split_at(segment, normalized, finer);
    }
    segments = std::move(finer);
  }
  return segments;
}

}  // namespace sinkref
