#include "base/notice.h"

#include <cstdio>

namespace sinkref {

void notice(const std::string& text) { std::fprintf(stderr, "sinkref: %s\n", text.c_str()); }

}  // namespace sinkref
