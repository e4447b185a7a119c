#include "tokenizer/pre_tokenizer.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "sinkref/error.h"
#include "tokenizer/utf8.h"

namespace sinkref {

namespace {

constexpr size_t max_pattern_bytes = 4096;

std::string pcre2_message(int code) {
  PCRE2_UCHAR text[200] = {};
  pcre2_get_error_message(code, text, sizeof text);
  return reinterpret_cast<const char*>(text);
}

// PCRE2's own \s takes U+180E as a space, which Unicode no longer does.
std::string with_unicode_space(const std::string& pattern) {
  std::string out;
  for (size_t i = 0; i < pattern.size(); ++i) {
    const char escaped = pattern[i] == '\\' && i + 1 < pattern.size() ? pattern[i + 1] : '\0';
    if (escaped == 's')
      out += R"(\p{White_Space})";
    else if (escaped == 'S')
      out += R"(\P{White_Space})";
    else if (escaped != '\0')
      out += pattern.substr(i, 2);
    else
      out += pattern[i];
    if (escaped != '\0') ++i;
  }
  return out;
}

}  // namespace

class PreTokenizer::Regex {
 public:
  Regex(const std::string& pattern, const std::string& where)
      : where_(where), regex_("regular expression " + quoted(pattern)), code_(nullptr, free_code) {
    if (pattern.size() > max_pattern_bytes)
      refuse(where_, regex_ + " has " + std::to_string(pattern.size()) +
                         " bytes, expected at most " + std::to_string(max_pattern_bytes));
    const std::string text = with_unicode_space(pattern);
    int error = 0;
    PCRE2_SIZE offset = 0;
    code_.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(),
                              PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &error, &offset,
                              nullptr));
    if (!code_) refuse(where_, regex_ + ", expected one that PCRE2 takes: " + pcre2_message(error));
  }

  void split(std::string_view text, std::vector<std::string_view>& out) const {
    const std::unique_ptr<pcre2_match_data, decltype(&pcre2_match_data_free)> match(
        pcre2_match_data_create(1, nullptr), pcre2_match_data_free);
    size_t done = 0, from = 0, start = 0, end = 0;
    auto cut_at = [&](size_t at) {
      if (at > done) out.push_back(text.substr(done, at - done));
      done = at;
    };
    while (from < text.size() && find(text, from, match.get(), start, end)) {
      cut_at(start);
      cut_at(end);
      from = end;
      // An empty match only cuts; the search goes on after the next character.
      if (start == end && end < text.size())
        from += utf8_length(static_cast<unsigned char>(text[end]));
    }
    cut_at(text.size());
  }

 private:
  static void free_code(pcre2_code* code) { pcre2_code_free(code); }

  bool find(std::string_view text, size_t from, pcre2_match_data* match, size_t& start,
            size_t& end) const {
    // Tokenizer::encode has checked the text; checking it again in every call would be quadratic.
    const int found = pcre2_match(code_.get(), reinterpret_cast<PCRE2_SPTR>(text.data()),
                                  text.size(), from, PCRE2_NO_UTF_CHECK, match, nullptr);
    if (found == PCRE2_ERROR_NOMATCH) return false;
    if (found < 0)
      refuse(where_, regex_ + ", expected one that ends on this text: " + pcre2_message(found),
             "shorten the text or give token ids");
    start = pcre2_get_ovector_pointer(match)[0];
    end = pcre2_get_ovector_pointer(match)[1];
    return true;
  }

  std::string where_, regex_;
  std::unique_ptr<pcre2_code, decltype(&free_code)> code_;
};

PreTokenizer::PreTokenizer() = default;
PreTokenizer::~PreTokenizer() = default;
PreTokenizer::PreTokenizer(PreTokenizer&&) noexcept = default;
PreTokenizer& PreTokenizer::operator=(PreTokenizer&&) noexcept = default;

void PreTokenizer::add(const std::string& pattern, const std::string& where) {
  steps_.emplace_back(pattern, where);
}

std::vector<std::string_view> PreTokenizer::split(std::string_view text) const {
  std::vector<std::string_view> pieces{text};
  for (const Regex& step : steps_) {
    std::vector<std::string_view> finer;
    for (std::string_view piece : pieces) step.split(piece, finer);
    pieces = std::move(finer);
  }
  return pieces;
}

}  // namespace sinkref
