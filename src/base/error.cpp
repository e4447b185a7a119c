#include "sinkref/error.h"

#include <cstdio>

namespace sinkref {

void refuse(const std::string& where, const std::string& problem, const std::string& remedy) {
  throw InputError(where + ": " + problem + "; " + remedy);
}

std::string quoted(const std::string& text) {
  constexpr size_t longest = 120;
  std::string out = "\"";
  for (size_t i = 0; i < text.size() && i < longest; ++i) {
    const unsigned char c = static_cast<unsigned char>(text[i]);
    if (c == '"' || c == '\\') {
      out += '\\';
      out += static_cast<char>(c);
    } else if (c < 0x20 || c >= 0x7f) {
      char hex[5];
      std::snprintf(hex, sizeof hex, "\\x%02x", c);
      out += hex;
    } else {
      out += static_cast<char>(c);
    }
  }
  if (text.size() > longest) out += "…";
  return out + "\"";
}

}  // namespace sinkref
