#include "base/shell.h"

#include <algorithm>
#include <cstdio>
#include <string_view>

#include "base/json_file.h"

namespace sinkref {

namespace {

bool is_plain(char c) {
  constexpr std::string_view marks = "_-./:=,@%+";
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
         marks.find(c) != marks.npos;
}

bool is_control(char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }

/// $'…': every byte that could end the word or mean something to a terminal as an octal number, which
/// unlike \x takes no more than three digits.
std::string escaped_bytes(const std::string& text) {
  std::string out = "$'";
  for (char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (is_control(c) || byte >= 0x80 || c == '\'' || c == '\\') {
      char octal[5];
      std::snprintf(octal, sizeof octal, "\\%03o", byte);
      out += octal;
    } else {
      out += c;
    }
  }
  return out + "'";
}

}  // namespace

std::string shell_quoted(const std::string& text) {
  // zsh reads a leading = as a program's name.
  if (!text.empty() && text[0] != '=' && std::all_of(text.begin(), text.end(), is_plain)) return text;
  if (std::any_of(text.begin(), text.end(), is_control) || valid_utf8(text) != text)
    return escaped_bytes(text);
  std::string out = "'";
  for (char c : text) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return out + "'";
}

}  // namespace sinkref
