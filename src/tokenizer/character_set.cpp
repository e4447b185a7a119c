#include "tokenizer/character_set.h"

#include <algorithm>
#include <charconv>

namespace sinkref {

namespace {

using Range = CharacterSet::Range;

constexpr char32_t last_character = 0x10FFFF;
constexpr Range surrogates = {0xD800, 0xDFFF};

struct NamedSet {
  std::string_view name;
  std::vector<Range> ranges;
};

const std::vector<NamedSet>& named_sets() {
  static const std::vector<NamedSet> sets = {
#include "tokenizer/unicode_classes.inc"
  };
  return sets;
}

std::string escaped(char32_t c) {
  char digits[8];
  const auto end = std::to_chars(digits, digits + sizeof digits, uint32_t{c}, 16).ptr;
  return "\\x{" + std::string(digits, end) + "}";
}

}  // namespace

CharacterSet::CharacterSet(std::vector<Range> ranges) {
  std::sort(ranges.begin(), ranges.end(), [](Range a, Range b) { return a.first < b.first; });
  for (const Range& range : ranges) {
    if (!ranges_.empty() && range.first <= ranges_.back().last + 1)
      ranges_.back().last = std::max(ranges_.back().last, range.last);
    else
      ranges_.push_back(range);
  }
}

std::optional<CharacterSet> CharacterSet::named(std::string_view name) {
  std::vector<Range> ranges;
  const bool is_group = name.size() == 1 && name[0] >= 'A' && name[0] <= 'Z';
  for (const NamedSet& set : named_sets()) {
    const bool belongs = is_group ? set.name.size() == 2 && set.name[0] == name[0] : set.name == name;
    if (belongs) ranges.insert(ranges.end(), set.ranges.begin(), set.ranges.end());
  }
  if (ranges.empty()) return std::nullopt;
  return CharacterSet(std::move(ranges));
}

CharacterSet CharacterSet::complement() const {
  std::vector<Range> gaps;
  char32_t next = 0;
  const CharacterSet taken = united(CharacterSet({surrogates}));
  for (const Range& range : taken.ranges_) {
    if (range.first > next) gaps.push_back({next, range.first - 1});
    next = range.last + 1;
  }
  if (next <= last_character) gaps.push_back({next, last_character});
  // Ranges that meet at the surrogates must stay apart.
  CharacterSet out;
  out.ranges_ = std::move(gaps);
  return out;
}

CharacterSet CharacterSet::united(const CharacterSet& other) const {
  std::vector<Range> all = ranges_;
  all.insert(all.end(), other.ranges_.begin(), other.ranges_.end());
  return CharacterSet(std::move(all));
}

CharacterSet CharacterSet::intersected(const CharacterSet& other) const {
  return complement().united(other.complement()).complement();
}

std::string CharacterSet::pcre2() const {
  if (empty()) return "(?!)";
  std::vector<Range> by_width = ranges_;
  std::stable_sort(by_width.begin(), by_width.end(), [](Range a, Range b) {
    return a.last - a.first > b.last - b.first;
  });
  std::string text = "[";
  for (const Range& range : by_width) {
    text += escaped(range.first);
    if (range.last > range.first) text += "-" + escaped(range.last);
  }
  return text + "]";
}

}  // namespace sinkref
