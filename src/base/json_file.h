#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string_view>

namespace sinkref {

/// Strict JSON: UTF-8 without BOM, no duplicate keys, nesting at most 64 deep, nothing after the
/// value. `what` names the text in messages ("model/config.json"). Throws InputError.
nlohmann::json parse_json(std::string_view text, const std::string& what);

/// JSON text. Bytes that are no UTF-8 (a file's name, a token that ends inside a character) become
/// U+FFFD, so that no result is lost at its last step.
std::string json_text(const nlohmann::ordered_json& value, int indent = 2);

/// The text with U+FFFD for what is no UTF-8, as json_text() has it.
std::string valid_utf8(const std::string& text);

/// A whole file, at most `max_bytes` long. Throws InputError naming the file.
nlohmann::json read_json_file(const std::filesystem::path& file, size_t max_bytes = 256u << 20);

/// A whole file as bytes, or a pipe ("-", /dev/stdin, /dev/fd/N); the same limits and errors.
std::string read_text_file(const std::filesystem::path& file, size_t max_bytes = 256u << 20);

}  // namespace sinkref
