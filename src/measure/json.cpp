#include "measure/json.h"

#include <cmath>
#include <cstdio>
#include <cstdlib>

namespace sinkref {

using nlohmann::ordered_json;

ordered_json number(double value) {
  if (!std::isfinite(value)) return nullptr;
  char text[32];
  std::snprintf(text, sizeof text, "%.9g", value);
  return std::strtod(text, nullptr);
}

ordered_json numbers(const std::vector<double>& values) {
  ordered_json list = ordered_json::array();
  for (double value : values) list.push_back(number(value));
  return list;
}

}  // namespace sinkref
