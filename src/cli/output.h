#pragma once

#include <string>

#include "base/json_file.h"

namespace sinkref::cli {

/// One line on stderr: progress and notes.
void say(const std::string& text);

}  // namespace sinkref::cli
