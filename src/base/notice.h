#pragma once

#include <string>

namespace sinkref {

/// Tells the user what he may want to know though nothing failed: one line on stderr.
void notice(const std::string& text);

}  // namespace sinkref
