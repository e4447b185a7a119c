#pragma once

#include <string>

namespace sinkref {

/// A pattern of a tokenizer.json, which is in Oniguruma's dialect, as one that means the same to
/// PCRE2. Classes are written out, so that neither library's version of Unicode has a say. Throws
/// InputError for what might mean something else; `where` names the file, `regex` the pattern.
std::string oniguruma_to_pcre2(const std::string& pattern, const std::string& where,
                               const std::string& regex);

}  // namespace sinkref
