#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace sinkref::cli {

/// JSON text. Bytes that are no UTF-8 (a file's name, a token that ends inside a character) become
/// U+FFFD, so that no result is lost at its last step.
std::string json_text(const nlohmann::ordered_json& value, int indent = 2);

/// The text with U+FFFD for what is no UTF-8, as json_text() has it.
std::string valid_utf8(const std::string& text);

/// One line on stderr: progress and notes.
void say(const std::string& text);

}  // namespace sinkref::cli
