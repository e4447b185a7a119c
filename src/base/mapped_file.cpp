#include "base/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "sinkref/error.h"

namespace sinkref {

constexpr const char* remedy = "check the path, its permissions and the memory limit";

MappedFile::MappedFile(const std::filesystem::path& path) : path_(path) {
  // O_NONBLOCK: opening a FIFO must fail below, not wait for a writer.
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0)
    refuse(path.string(),
           std::string("cannot be opened: ") + std::strerror(errno) + ", expected a readable file",
           remedy);
  struct stat info {};
  if (::fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
    ::close(fd);
    refuse(path.string(), "not a regular file, expected one", remedy);
  }
  size_ = static_cast<size_t>(info.st_size);
  void* mapped = size_ == 0 ? nullptr : ::mmap(nullptr, size_, PROT_READ, MAP_SHARED, fd, 0);
  const int error = errno;
  ::close(fd);
  if (mapped == MAP_FAILED)
    refuse(path.string(),
           std::string("cannot be mapped into memory: ") + std::strerror(error) +
               ", expected room for " + std::to_string(size_) + " bytes",
           remedy);
  data_ = static_cast<const std::byte*>(mapped);
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
}

}  // namespace sinkref
