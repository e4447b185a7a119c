#include "tokenizer/pre_tokenizer.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>

#include "sinkref/error.h"
#include "tokenizer/oniguruma.h"
#include "tokenizer/utf8.h"

namespace sinkref {

namespace {

constexpr size_t max_pattern_bytes = 4096;

std::string pcre2_message(int code) {
  PCRE2_UCHAR text[200] = {};
  pcre2_get_error_message(code, text, sizeof text);
  return reinterpret_cast<const char*>(text);
}

// What a pattern may cost on one text, in PCRE2's steps (some 20 ns each): a match that stays within
// `free_steps` costs nothing, any other what it was allowed. So an exponential pattern is given up
// within a second, on every machine at the same place; one that reads each character once or twice
// never is.
constexpr uint64_t free_steps = 1u << 10;
constexpr uint64_t steps_per_text = 1u << 24;
constexpr uint64_t steps_per_byte = 64;

}  // namespace

class PreTokenizer::Regex {
 public:
  Regex(const std::string& pattern, const std::string& where)
      : where_(where), regex_("regular expression " + quoted(pattern)), code_(nullptr, free_code),
        limits_(pcre2_match_context_create(nullptr), free_limits) {
    if (pattern.size() > max_pattern_bytes)
      refuse(where_, regex_ + " has " + std::to_string(pattern.size()) +
                         " bytes, expected at most " + std::to_string(max_pattern_bytes));
    const std::string text = oniguruma_to_pcre2(pattern, where_, regex_);
    int error = 0;
    PCRE2_SIZE offset = 0;
    code_.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(),
                              PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &error, &offset,
                              nullptr));
    if (!code_) refuse(where_, regex_ + ", expected one that PCRE2 takes: " + pcre2_message(error));
  }

  static uint64_t steps_for(size_t bytes) { return steps_per_text + steps_per_byte * bytes; }

  /// `steps`: what is left for the text that `text` is a piece of.
  void split(std::string_view text, uint64_t& steps, std::vector<std::string_view>& out) const {
    const std::unique_ptr<pcre2_match_data, decltype(&pcre2_match_data_free)> match(
        pcre2_match_data_create(1, nullptr), pcre2_match_data_free);
    size_t done = 0, from = 0, start = 0, end = 0;
    auto cut_at = [&](size_t at) {
      if (at > done) out.push_back(text.substr(done, at - done));
      done = at;
    };
    while (from < text.size() && find(text, from, match.get(), steps, start, end)) {
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
  static void free_limits(pcre2_match_context* limits) { pcre2_match_context_free(limits); }

  bool find(std::string_view text, size_t from, pcre2_match_data* match, uint64_t& steps,
            size_t& start, size_t& end) const {
    int found = PCRE2_ERROR_MATCHLIMIT;
    for (uint64_t limit = free_steps; found == PCRE2_ERROR_MATCHLIMIT; limit *= 16) {
      if (limit > free_steps) {
        limit = std::min({limit, steps, uint64_t{UINT32_MAX}});
        steps -= limit;
        if (steps == 0)
          refuse_text(text, "the limit of " + std::to_string(steps_per_byte) +
                                " steps per byte is reached");
      }
      pcre2_set_match_limit(limits_.get(), static_cast<uint32_t>(limit));
      // Tokenizer::encode has checked the text; checking it again in every call would be quadratic.
      found = pcre2_match(code_.get(), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), from,
                          PCRE2_NO_UTF_CHECK, match, limits_.get());
    }
    if (found == PCRE2_ERROR_NOMATCH) return false;
    if (found < 0) refuse_text(text, pcre2_message(found));
    start = pcre2_get_ovector_pointer(match)[0];
    end = pcre2_get_ovector_pointer(match)[1];
    return true;
  }

  [[noreturn]] void refuse_text(std::string_view text, const std::string& problem) const {
    refuse(where_,
           regex_ + " does not end on a text of " + std::to_string(text.size()) + " bytes: " +
               problem + ", expected a pattern whose cost grows with the text's length",
           "shorten the text or give token ids");
  }

  std::string where_, regex_;
  std::unique_ptr<pcre2_code, decltype(&free_code)> code_;
  std::unique_ptr<pcre2_match_context, decltype(&free_limits)> limits_;
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
    uint64_t steps = Regex::steps_for(text.size());
    for (std::string_view piece : pieces) step.split(piece, steps, finer);
    pieces = std::move(finer);
  }
  return pieces;
}

}  // namespace sinkref
