#pragma once

#include <cstddef>
#include <filesystem>
#include <span>

namespace sinkref {

/// A regular file mapped read-only into memory for its lifetime.
class MappedFile {
 public:
  explicit MappedFile(const std::filesystem::path& path);  ///< throws InputError
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace sinkref
