#pragma once

#include <string>
#include <string_view>

namespace sinkref {

/// Bytes of `text` before the first that is not UTF-8 (no overlong forms, surrogates or values
/// above U+10FFFF); text.size() if all of it is.
size_t valid_utf8_prefix(std::string_view text);

inline bool is_utf8(std::string_view text) {
  return valid_utf8_prefix(text) == text.size();
}

/// Length of the UTF-8 character that starts with this byte; the byte must start one.
inline size_t utf8_length(unsigned char first) {
  return first < 0x80 ? 1 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
}

/// The first character of valid, non-empty UTF-8.
char32_t first_character(std::string_view text);

void append_utf8(std::string& text, char32_t character);

/// Unicode's White_Space property, which is what `\s` means to Rust, Oniguruma and tiktoken.
bool is_white_space(char32_t character);

}  // namespace sinkref
