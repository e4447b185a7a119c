// The part of https://github.com/kkos/oniguruma/blob/master/doc/RE that tokenizers use. What the two
// dialects read differently, and all that is rare, is refused rather than guessed:
//   \h is a hexadecimal digit, [a&&b] an intersection, [a[b]] a union, a{,n} a repetition from 0,
//   a{n,m}+ a repeated repetition, ^ and $ match at every line, (?m) is what others call (?s).
#include "tokenizer/oniguruma.h"

#include <array>
#include <charconv>

#include "sinkref/error.h"
#include "tokenizer/character_set.h"
#include "tokenizer/utf8.h"

namespace sinkref {

namespace {

constexpr int max_nesting = 100;

bool is_ascii_letter_or_digit(char32_t c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

class Translator {
 public:
  Translator(const std::string& pattern, const std::string& where, const std::string& regex)
      : rest_(pattern), where_(where), regex_(regex) {}

  std::string translate() {
    const std::string out = alternatives(false, 0);
    if (!rest_.empty()) fail("\")\" without \"(\"");
    return out;
  }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    refuse(where_,
           regex_ + " has " + what +
               ", expected only what Oniguruma and PCRE2 are known to read in one way",
           "give token ids");
  }

  bool at(std::string_view text) const { return rest_.starts_with(text); }
  bool take(std::string_view text) {
    if (!at(text)) return false;
    rest_.remove_prefix(text.size());
    return true;
  }
  char32_t take_character() {
    const char32_t c = first_character(rest_);
    rest_.remove_prefix(utf8_length(static_cast<unsigned char>(rest_[0])));
    return c;
  }
  static std::string literal(char32_t c) { return CharacterSet({{c, c}}).pcre2(); }

  // Up to the end or a ")" that is left to the caller.
  std::string alternatives(bool caseless, int depth) {
    if (depth > max_nesting) fail("more than 100 groups inside one another");
    std::string out;
    // In Oniguruma an option counts to the end of its group, over all further alternatives; there
    // it is the same in PCRE2 only at the group's start.
    if (take("(?i)")) {
      caseless = true;
      out = "(?i)";
    }
    previous_letter_ = 0;
    while (!rest_.empty() && !at(")")) {
      if (take("|")) {
        out += "|";
        previous_letter_ = 0;
      } else {
        out += repeated(caseless, depth);
      }
    }
    return out;
  }

  std::string repeated(bool caseless, int depth) {
    const std::string_view start = rest_;
    bool is_assertion = false;
    std::string out = atom(caseless, depth, is_assertion);
    const std::string quantifier = take_quantifier();
    if (quantifier.empty()) return out;
    if (is_assertion) fail("a repeated assertion, " + quoted(std::string(start.substr(0, 20))));
    out += quantifier;
    // After a count, "+" does not make it possessive, it repeats all of it.
    if (quantifier.ends_with('}') && take("+")) out = "(?:" + out + ")+";
    if (at("*") || at("+") || at("?")) fail("a repetition of a repetition");
    return out;
  }

  std::string take_quantifier() {
    std::string out;
    bool is_counted = false, is_fixed = false;
    if (at("*") || at("+") || at("?")) {
      out = rest_.substr(0, 1);
      rest_.remove_prefix(1);
    } else if (!at("{") || !take_counts(out, is_fixed)) {
      return "";
    } else {
      is_counted = true;
    }
    if (is_fixed && at("?")) fail("\"?\" after a fixed count");
    if (at("?") || (at("+") && !is_counted)) {
      out += rest_[0];
      rest_.remove_prefix(1);
    }
    return out;
  }

  // {n}, {n,}, {,m} or {n,m}; anything else leaves "{" a literal.
  bool take_counts(std::string& out, bool& is_fixed) {
    const size_t end = rest_.find('}');
    if (end == rest_.npos) return false;
    const std::string_view counts = rest_.substr(1, end - 1);
    const size_t comma = counts.find(',');
    const std::string_view least = counts.substr(0, comma);
    const std::string_view most = comma == counts.npos ? least : counts.substr(comma + 1);
    const auto is_number = [](std::string_view text) {
      return text.find_first_not_of("0123456789") == text.npos;
    };
    if (!is_number(least) || !is_number(most) || (least.empty() && most.empty())) return false;
    is_fixed = comma == counts.npos;
    if (least.size() > 4 || most.size() > 4) fail("a repetition of more than 9999 times");
    if (!least.empty() && !most.empty() && number(least) > number(most))
      fail("a repetition whose counts are the wrong way round");
    out = "{" + std::string(least.empty() ? "0" : least) +
          (is_fixed ? "" : "," + std::string(most)) + "}";
    rest_.remove_prefix(end + 1);
    return true;
  }
  static int number(std::string_view digits) {
    int value = 0;
    std::from_chars(digits.data(), digits.data() + digits.size(), value);
    return value;
  }

  std::string atom(bool caseless, int depth, bool& is_assertion) {
    if (take("(")) return group(caseless, depth, is_assertion);
    if (take("[")) {
      previous_letter_ = 0;
      return set_text(character_class(caseless, 0), caseless);
    }
    if (take(".")) return "[^\\n]";
    if (take("^")) {
      is_assertion = true;
      return "(?:\\A|(?<=\\n)(?!\\z))";
    }
    if (take("$")) {
      is_assertion = true;
      return "(?=\\n|\\z)";
    }
    if (at("*") || at("+") || at("?")) fail("a repetition of nothing");
    if (take("\\")) return escape(caseless, is_assertion);
    return letter(take_character(), caseless);
  }

  std::string letter(char32_t c, bool caseless) {
    if (caseless) check_folding(c);
    return literal(c);
  }

  // Without regard to case, Oniguruma also takes "ß" for "ss" and the like.
  void check_folding(char32_t c) {
    if (c >= 0x80) fail("a character beyond ASCII without regard to case");
    const char small = static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c);
    const std::string pair = {previous_letter_, small};
    for (const char* folded : {"ss", "ff", "fi", "fl", "st"})
      if (pair == folded) fail(quoted(pair) + " without regard to case");
    previous_letter_ = small;
  }

  std::string group(bool caseless, int depth, bool& is_assertion) {
    std::string open = "(?:";
    if (take("?>")) {
      open = "(?>";
    } else if (take("?i:")) {
      open = "(?i:";
      caseless = true;
    } else if (take("?-i:")) {
      open = "(?-i:";
      caseless = false;
    } else if (at("?=") || at("?!") || at("?<=") || at("?<!")) {
      const size_t size = at("?<") ? 3 : 2;
      open = "(" + std::string(rest_.substr(0, size));
      rest_.remove_prefix(size);
      is_assertion = true;
    } else if (!take("?:") && (at("?") || at("*"))) {
      fail("the group " + quoted("(" + std::string(rest_.substr(0, 3))));
    }
    const std::string inside = alternatives(caseless, depth + 1);
    if (!take(")")) fail("\"(\" without \")\"");
    previous_letter_ = 0;
    return open + inside + ")";
  }

  std::string escape(bool caseless, bool& is_assertion) {
    if (rest_.empty()) fail("\"\\\" at its end");
    for (const char* anchor : {"A", "z", "Z"})
      if (take(anchor)) {
        is_assertion = true;
        return std::string("\\") + anchor;
      }
    if (const auto set = take_escaped_set()) return set_text(*set, caseless);
    return letter(take_escaped_character(), caseless);
  }

  std::string set_text(const CharacterSet& set, bool caseless) const {
    if (caseless && !set.is_ascii()) fail("a class beyond ASCII without regard to case");
    return set.pcre2();
  }

  // After "\": \s, \p{L}, … or nothing.
  std::optional<CharacterSet> take_escaped_set() {
    for (const char* name : {"s", "d", "w"})
      if (take(name)) return CharacterSet::named(name);
    if (take("S")) return CharacterSet::named("s")->complement();
    if (take("D")) return CharacterSet::named("d")->complement();
    if (take("W")) return CharacterSet::named("w")->complement();
    const CharacterSet hexadecimal({{'0', '9'}, {'a', 'f'}, {'A', 'F'}});
    if (take("h")) return hexadecimal;
    if (take("H")) return hexadecimal.complement();
    if (!at("p{") && !at("P{")) return std::nullopt;
    const size_t end = rest_.find('}');
    if (end == rest_.npos) fail("\"\\p{\" without \"}\"");
    bool is_negated = rest_[0] == 'P';
    std::string_view name = rest_.substr(2, end - 2);
    if (name.starts_with('^')) {
      is_negated = !is_negated;
      name.remove_prefix(1);
    }
    const std::optional<CharacterSet> set = name.size() > 1 || (name >= "A" && name <= "Z")
                                                ? CharacterSet::named(name)
                                                : std::nullopt;
    if (!set) fail("the property " + quoted(std::string(name)));
    rest_.remove_prefix(end + 1);
    return is_negated ? set->complement() : *set;
  }

  // After "\": a character that stands for itself or for a control character.
  char32_t take_escaped_character() {
    constexpr std::array<std::pair<char, char32_t>, 7> controls = {
        {{'n', '\n'}, {'r', '\r'}, {'t', '\t'}, {'f', '\f'}, {'v', '\v'}, {'a', '\a'}, {'e', 0x1B}}};
    for (const auto& [name, c] : controls)
      if (take(std::string_view(&name, 1))) return c;
    if (take("u")) return take_hexadecimal(4, 4);
    if (take("x{")) {
      const char32_t c = take_hexadecimal(1, 6);
      if (!take("}")) fail("\"\\x{\" without \"}\"");
      return c;
    }
    if (take("x")) {
      const char32_t c = take_hexadecimal(2, 2);
      if (c >= 0x80) fail("\"\\x\" with a byte beyond ASCII");
      return c;
    }
    const char32_t c = first_character(rest_);
    if (is_ascii_letter_or_digit(c)) fail("the escape " + quoted("\\" + std::string(1, rest_[0])));
    return take_character();
  }

  char32_t take_hexadecimal(size_t least, size_t most) {
    uint32_t value = 0;
    const char* begin = rest_.data();
    const auto [end, error] =
        std::from_chars(begin, begin + std::min(most, rest_.size()), value, 16);
    const size_t digits = static_cast<size_t>(end - begin);
    const bool is_character = value <= 0x10FFFF && (value < 0xD800 || value > 0xDFFF);
    if (error != std::errc() || digits < least || !is_character)
      fail("an escape without a character's hexadecimal number");
    rest_.remove_prefix(digits);
    return value;
  }

  // After "[", up to and with "]".
  CharacterSet character_class(bool caseless, int depth) {
    if (depth > max_nesting) fail("more than 100 classes inside one another");
    const bool is_negated = take("^");
    if (at("]")) fail("a class that starts with \"]\"");
    std::optional<CharacterSet> before;  // what stands before "&&"
    CharacterSet set;
    bool is_plain = !is_negated, is_empty = true;
    while (!take("]")) {
      if (rest_.empty()) fail("\"[\" without \"]\"");
      if (take("&&")) {
        if (is_empty || at("]") || at("&&")) fail("\"&&\" with nothing on one side");
        if (depth > 0) fail("\"&&\" in a nested class");  // which Oniguruma itself confuses
        before = before ? before->intersected(set) : set;
        set = {};
        is_empty = true;
        is_plain = false;
        continue;
      }
      is_plain &= !at("[");
      set = set.united(class_item(caseless, depth));
      is_empty = false;
    }
    if (before) set = before->intersected(set);
    if (caseless && !is_plain) fail("a negated or nested class without regard to case");
    return is_negated ? set.complement() : set;
  }

  CharacterSet class_item(bool caseless, int depth) {
    if (at("[:")) fail("a POSIX class");
    if (take("[")) return character_class(caseless, depth + 1);
    char32_t first = 0;
    if (take("\\")) {
      if (rest_.empty()) fail("\"\\\" at its end");
      if (at("b")) fail("the escape \"\\b\"");
      if (const auto set = take_escaped_set()) {
        if (at("-") && !at("-]")) fail("\"-\" after a class");
        return *set;
      }
      first = take_escaped_character();
    } else {
      first = take_character();
    }
    if (!at("-") || at("-]")) return CharacterSet({{first, first}});
    rest_.remove_prefix(1);
    if (at("[") || at("&&")) fail("a range without an end");
    const bool is_escaped = take("\\");
    if (rest_.empty()) fail("\"[\" without \"]\"");
    if (is_escaped && take_escaped_set()) fail("a class at the end of a range");
    const char32_t last = is_escaped ? take_escaped_character() : take_character();
    if (last < first) fail("a range whose ends are the wrong way round");
    if (at("-") && !at("-]")) fail("\"-\" after a range");
    return CharacterSet({{first, last}}).complement().complement();  // without the surrogates
  }

  std::string_view rest_;
  const std::string& where_;
  const std::string& regex_;
  char previous_letter_ = 0;  // of a run of literals without regard to case
};

}  // namespace

std::string oniguruma_to_pcre2(const std::string& pattern, const std::string& where,
                               const std::string& regex) {
  return Translator(pattern, where, regex).translate();
}

}  // namespace sinkref
