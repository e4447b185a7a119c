#pragma once

#include <string>

namespace sinkref {

/// The text as one word of a POSIX shell: as it stands where it needs no quotes, else in single quotes
/// ('\'' for a quote inside). With control characters or bytes that are no UTF-8 it becomes $'…', which
/// bash, zsh and ksh read, so that what is copied from a page stays on one line.
std::string shell_quoted(const std::string& text);

}  // namespace sinkref
