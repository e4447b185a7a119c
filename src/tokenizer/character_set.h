#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace sinkref {

/// Characters of Unicode as sorted, separate ranges; the surrogates belong to none.
class CharacterSet {
 public:
  struct Range {
    char32_t first, last;
    bool operator==(const Range&) const = default;
  };

  CharacterSet() = default;
  /// In any order, and they may overlap.
  explicit CharacterSet(std::vector<Range> ranges);
  /// "Lu", "L" (all that start with it), "Han", "w", "s", "d": as the tokenizers package has them.
  static std::optional<CharacterSet> named(std::string_view name);

  CharacterSet complement() const;
  CharacterSet united(const CharacterSet& other) const;
  CharacterSet intersected(const CharacterSet& other) const;

  const std::vector<Range>& ranges() const { return ranges_; }
  bool empty() const { return ranges_.empty(); }
  bool is_ascii() const { return empty() || ranges_.back().last < 0x80; }
  /// As a class of PCRE2, which tries the ranges in order: the widest come first.
  std::string pcre2() const;

 private:
  std::vector<Range> ranges_;
};

}  // namespace sinkref
