#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace sinkref {

/// In Oniguruma's dialect, as everything in a tokenizer.json.
namespace pattern {
constexpr const char* gpt2 =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
constexpr const char* llama3 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|)"
    R"( ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* digit = R"(\p{N})";
constexpr const char* digits = R"(\p{N}+)";
}  // namespace pattern

/// Cuts text into the pieces that a byte-level BPE merges within. Each regular expression cuts
/// the pieces of the one before: matches, and what lies between them, become pieces.
class PreTokenizer {
 public:
  PreTokenizer();
  ~PreTokenizer();
  PreTokenizer(PreTokenizer&&) noexcept;
  PreTokenizer& operator=(PreTokenizer&&) noexcept;

  /// `where` names the file in messages; InputError for a pattern that PCRE2 refuses or might read
  /// otherwise than Oniguruma (oniguruma.h).
  void add(const std::string& pattern, const std::string& where);

  std::vector<std::string_view> split(std::string_view text) const;

 private:
  class Regex;
  std::vector<Regex> steps_;
};

}  // namespace sinkref
