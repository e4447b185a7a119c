#include "cli/output.h"

#include <iostream>

namespace sinkref::cli {

void say(const std::string& text) {
  std::cerr << text << '\n';
}

}  // namespace sinkref::cli
