#include "cli/output.h"

#include <iostream>

namespace sinkref::cli {

using nlohmann::ordered_json;

std::string json_text(const ordered_json& value, int indent) {
  return value.dump(indent, ' ', false, ordered_json::error_handler_t::replace);
}

std::string valid_utf8(const std::string& text) {
  return ordered_json::parse(json_text(text, -1)).get<std::string>();
}

void say(const std::string& text) {
  std::cerr << text << '\n';
}

}  // namespace sinkref::cli
