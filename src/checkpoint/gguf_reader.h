#pragma once

#include <algorithm>
#include <string>
#include <string_view>

#include "checkpoint/readers.h"
#include "sinkref/error.h"

namespace sinkref {

/// Walks through a GGUF header. Every read is checked against the end of the file, and every
/// length against the bytes that are left, before anything is allocated for it.
class GgufReader {
 public:
  explicit GgufReader(const MappedFile& file) : file_(file) {}

  uint64_t position() const { return position_; }
  uint64_t left() const { return file_.bytes().size() - position_; }

  bool starts_with(std::string_view text) const {
    const std::span<const std::byte> bytes = file_.bytes();
    return bytes.size() >= text.size() && std::memcmp(bytes.data(), text.data(), text.size()) == 0;
  }

  template <class T>
  T number(const std::string& what) {
    return load<T>(take(sizeof(T), what));
  }

  std::string string(const std::string& what, uint64_t longest) {
    const uint64_t length = number<uint64_t>(what);
    if (length > std::min(longest, left()))
      fail(what + " is " + std::to_string(length) + " bytes long, expected at most " +
           std::to_string(std::min(longest, left())));
    return {reinterpret_cast<const char*>(take(length, what)), length};
  }

  [[noreturn]] void fail(
      const std::string& problem,
      const std::string& remedy = "download it or convert the model again") const {
    refuse(file_.path().string(), problem, remedy);
  }

 private:
  const std::byte* take(uint64_t bytes, const std::string& what) {
    if (bytes > left())
      fail("is truncated: it ends at byte " + std::to_string(file_.bytes().size()) + " within " +
               what + ", expected " + std::to_string(bytes - left()) + " more",
           "download it again");
    const std::byte* here = file_.bytes().data() + position_;
    position_ += bytes;
    return here;
  }

  const MappedFile& file_;
  uint64_t position_ = 0;
};

}  // namespace sinkref
