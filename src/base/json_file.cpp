#include "base/json_file.h"

#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstring>
#include <fstream>
#include <optional>
#include <set>
#include <sstream>
#include <vector>

#include "sinkref/error.h"

namespace sinkref {

namespace {
constexpr int max_depth = 64;

// nlohmann's exception text from the place in the file on: "line 1, column 4: …".
std::string reason(const std::exception& e) {
  const std::string text = e.what();
  const size_t end = text.find("] ");
  std::string plain = end == std::string::npos ? text : text.substr(end + 2);
  constexpr std::string_view noise = "parse error at ";
  return plain.starts_with(noise) ? plain.substr(noise.size()) : plain;
}

/// Reads an open descriptor to its end.
std::string read_stream(int descriptor, const std::string& name, size_t max_bytes) {
  std::string text;
  std::vector<char> part(1 << 16);
  for (;;) {
    const ssize_t n = ::read(descriptor, part.data(), part.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0)
      refuse(name, std::string("cannot be read: ") + std::strerror(errno) + ", expected some text",
             "give a file or a pipe");
    if (n == 0) return text;
    text.append(part.data(), static_cast<size_t>(n));
    if (text.size() > max_bytes)
      refuse(name, "holds more than " + std::to_string(max_bytes) + " bytes, expected fewer",
             "shorten it");
  }
}

/// The descriptor that a name stands for: "-" and /dev/stdin, and what a shell writes for <(…).
std::optional<int> open_descriptor(const std::string& name) {
  if (name == "-" || name == "/dev/stdin") return 0;
  for (const std::string_view folder : {"/dev/fd/", "/proc/self/fd/"}) {
    int descriptor = -1;
    const char* end = name.data() + name.size();
    if (!name.starts_with(folder)) continue;
    const auto [rest, error] = std::from_chars(name.data() + folder.size(), end, descriptor);
    if (error == std::errc() && rest == end && descriptor >= 0) return descriptor;
  }
  return std::nullopt;
}

}  // namespace

nlohmann::json parse_json(std::string_view text, const std::string& what) {
  using Event = nlohmann::json::parse_event_t;
  std::vector<std::set<std::string>> keys;
  auto check = [&](int depth, Event event, nlohmann::json& value) {
    if (depth > max_depth)
      refuse(what, "JSON is nested more than " + std::to_string(max_depth) +
                       " levels deep, expected fewer");
    if (event == Event::object_start) keys.emplace_back();
    if (event == Event::object_end) keys.pop_back();
    if (event == Event::key && !keys.back().insert(value.get<std::string>()).second)
      refuse(what, "key " + quoted(value.get<std::string>()) +
                       " stands twice in one JSON object, expected once");
    return true;
  };
  if (text.starts_with("\xEF\xBB\xBF"))
    refuse(what, "starts with a byte order mark, expected plain UTF-8 JSON");
  if (text.starts_with("version https://git-lfs"))
    refuse(what, "is a git-lfs pointer, expected the file itself", "run git lfs pull");
  // To nlohmann's parser a NUL is the end of the text: whatever follows it would pass unseen.
  if (text.find('\0') != text.npos) refuse(what, "holds a NUL byte, expected plain UTF-8 JSON");
  try {
    return nlohmann::json::parse(text.begin(), text.end(), check);
  } catch (const nlohmann::json::exception& e) {
    refuse(what, "expected JSON, found " + quoted(reason(e)));
  }
}

std::string read_text_file(const std::filesystem::path& file, size_t max_bytes) {
  if (const std::optional<int> descriptor = open_descriptor(file.string()))
    return read_stream(*descriptor, file == "-" ? "standard input" : file.string(), max_bytes);
  std::error_code error;
  const auto status = std::filesystem::status(file, error);
  if (!std::filesystem::exists(status))
    refuse(file.string(), "no such file, expected one", "check the path");
  if (!std::filesystem::is_regular_file(status))
    refuse(file.string(), "not a regular file, expected one", "give the path of a file");
  const auto size = std::filesystem::file_size(file, error);
  if (error || size > max_bytes)
    refuse(file.string(),
           std::to_string(size) + " bytes, expected at most " + std::to_string(max_bytes));
  std::ifstream in(file, std::ios::binary);
  std::ostringstream text;
  text << in.rdbuf();
  if (!in)
    refuse(file.string(), "cannot be read, expected a readable file", "check its permissions");
  return std::move(text).str();
}

nlohmann::json read_json_file(const std::filesystem::path& file, size_t max_bytes) {
  return parse_json(read_text_file(file, max_bytes), file.string());
}

std::string json_text(const nlohmann::ordered_json& value, int indent) {
  return value.dump(indent, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

std::string valid_utf8(const std::string& text) {
  return nlohmann::ordered_json::parse(json_text(text, -1)).get<std::string>();
}

}  // namespace sinkref
