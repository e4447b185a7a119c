#pragma once

#include <sys/stat.h>

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
  friend void require_unchanged_inputs();
  void require_unchanged() const;

  std::filesystem::path path_;
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
  int fd_ = -1;  ///< open, so that a file that has taken its name meanwhile is not looked at
  struct stat opened_ {};
};

/// InputError if a file that is mapped now has been written to since it was opened: what was computed
/// from it is of no known weights. (One put in its place by rename() changes nothing here.) Whoever
/// gives results away asks before.
void require_unchanged_inputs();

}  // namespace sinkref
