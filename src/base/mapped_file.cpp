#include "base/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <mutex>
#include <set>

#include "sinkref/error.h"

namespace sinkref {

namespace {

constexpr const char* remedy = "check the path, its permissions and the memory limit";

struct Mapped {
  std::mutex mutex;
  std::set<const MappedFile*> files;
};
Mapped& mapped() {
  static Mapped all;
  return all;
}

}  // namespace

MappedFile::MappedFile(const std::filesystem::path& path) : path_(path) {
  // O_NONBLOCK: opening a FIFO must fail below, not wait for a writer.
  fd_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd_ < 0)
    refuse(path.string(),
           std::string("cannot be opened: ") + std::strerror(errno) + ", expected a readable file",
           remedy);
  if (::fstat(fd_, &opened_) != 0 || !S_ISREG(opened_.st_mode)) {
    ::close(fd_);
    refuse(path.string(), "not a regular file, expected one", remedy);
  }
  size_ = static_cast<size_t>(opened_.st_size);
  void* memory = size_ == 0 ? nullptr : ::mmap(nullptr, size_, PROT_READ, MAP_SHARED, fd_, 0);
  if (memory == MAP_FAILED) {
    const int error = errno;
    ::close(fd_);
    refuse(path.string(),
           std::string("cannot be mapped into memory: ") + std::strerror(error) +
               ", expected room for " + std::to_string(size_) + " bytes",
           remedy);
  }
  data_ = static_cast<const std::byte*>(memory);
  const std::lock_guard lock(mapped().mutex);
  mapped().files.insert(this);
}

MappedFile::~MappedFile() {
  {
    const std::lock_guard lock(mapped().mutex);
    mapped().files.erase(this);
  }
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
  ::close(fd_);
}

void MappedFile::require_unchanged() const {
  struct stat now {};
  const bool same = ::fstat(fd_, &now) == 0 && now.st_size == opened_.st_size &&
                    now.st_mtim.tv_sec == opened_.st_mtim.tv_sec &&
                    now.st_mtim.tv_nsec == opened_.st_mtim.tv_nsec;
  if (!same)
    refuse(path_.string(), "was written to while it was being read, expected it to stay as it is",
           "run again when it is complete");
}

void require_unchanged_inputs() {
  const std::lock_guard lock(mapped().mutex);
  for (const MappedFile* file : mapped().files) file->require_unchanged();
}

}  // namespace sinkref
