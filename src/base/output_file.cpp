#include "base/output_file.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <vector>

#include "base/mapped_file.h"
#include "base/notice.h"
#include "sinkref/error.h"

namespace sinkref {

namespace fs = std::filesystem;

namespace {

// What a signal handler may read: names in a fixed place, each valid while it is listed.
std::atomic<const char*> unfinished[64];

size_t list_unfinished(const char* name) {
  for (size_t slot = 0; slot < std::size(unfinished); ++slot) {
    const char* free = nullptr;
    if (unfinished[slot].compare_exchange_strong(free, name)) return slot;
  }
  return SIZE_MAX;  // so many at once: an interrupt would leave this one
}

void unlist(size_t slot) {
  if (slot != SIZE_MAX) unfinished[slot] = nullptr;
}

/// "FILE.partial-PID", as many as there are.
std::vector<fs::path> unfinished_files(const fs::path& path) {
  const std::string begin = path.filename().string() + ".partial-";
  std::vector<fs::path> all;
  std::error_code error;
  const fs::path folder = path.has_parent_path() ? path.parent_path() : fs::path(".");
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    if (name.size() > begin.size() && name.starts_with(begin) &&
        name.find_first_not_of("0123456789-", begin.size()) == name.npos)
      all.push_back(entry->path());
  }
  return all;
}

/// Removes those that no process holds: what killed ones have left.
void remove_abandoned(const fs::path& path) {
  for (const fs::path& file : unfinished_files(path)) {
    const int fd = ::open(file.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) continue;
    struct stat status {};
    // Where there are no locks nobody knows, and all of them stay.
    if (::fstat(fd, &status) == 0 && S_ISREG(status.st_mode) && ::flock(fd, LOCK_EX | LOCK_NB) == 0)
      ::unlink(file.c_str());
    ::close(fd);
  }
}

}  // namespace

void remove_unfinished_files() noexcept {
  for (const std::atomic<const char*>& name : unfinished)
    if (const char* file = name.load()) ::unlink(file);
}

OutputFile::OutputFile(const fs::path& path, bool overwrite) : path_(path), overwrite_(overwrite) {
  std::error_code ignored;
  if (path_.empty()) refuse("output file", "its name is empty, expected a file", "give a name");
  if (path_ == "-") refuse("-", "is standard output, expected the name of a file", "give one, or ./- for a file of this name");
  if (fs::is_directory(path_, ignored))
    refuse(path_.string(), "is a folder, expected the name of a file to write",
           "choose another name");
  if (!overwrite_ && fs::exists(fs::symlink_status(path_, ignored)))
    refuse(path_.string(), "exists already, expected no such file",
           "choose another name or add --force");
  // The link would be replaced, not what it leads to; as root even /dev/stdout.
  if (fs::is_symlink(fs::symlink_status(path_, ignored)))
    refuse(path_.string(), "is a symbolic link, expected a file or a free name", "give the file that it leads to");
  // Renaming over a device or a FIFO would destroy it for everyone.
  if (fs::exists(path_, ignored) && !fs::is_regular_file(path_, ignored))
    refuse(path_.string(), "is no regular file, expected one or none", "choose another name");
  remove_abandoned(path_);
  open_temporary();
}

/// Under a name of its own. Process numbers come again, in containers all the time.
void OutputFile::open_temporary() {
  constexpr int most = 100;
  for (int i = 0; i < most; ++i) {
    temporary_ = path_;
    temporary_ += ".partial-" + std::to_string(::getpid()) + (i == 0 ? "" : "-" + std::to_string(i));
    slot_ = list_unfinished(temporary_.c_str());
    fd_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    const int error = errno;
    struct stat status {};
    // Another process may have taken it for an abandoned one before it was held.
    const bool held = fd_ >= 0 && (::flock(fd_, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK) &&
                      ::fstat(fd_, &status) == 0 && status.st_nlink > 0;
    if (held) return;
    unlist(slot_);
    if (fd_ < 0 && (error != EEXIST || i + 1 == most)) fail("cannot be created", error);
    if (fd_ >= 0) ::close(fd_);
  }
}

OutputFile::~OutputFile() {
  if (fd_ >= 0) {
    ::close(fd_);
    ::unlink(temporary_.c_str());
  }
  unlist(slot_);
}

void OutputFile::fail(const std::string& action, int error) const {
  refuse(path_.string(),
         action + ": " + std::strerror(error) + ", expected a writable folder with room",
         "nothing was left behind; choose another place");
}

void OutputFile::resize(size_t bytes) {
  if (bytes == 0) return;
  int error = EINTR;
  while (error == EINTR) error = ::posix_fallocate(fd_, 0, static_cast<off_t>(bytes));
  // Not every file system can claim space.
  const bool unknown = error == EINVAL || error == ENOSYS || error == EOPNOTSUPP;
  if (unknown) error = ::ftruncate(fd_, static_cast<off_t>(bytes)) == 0 ? 0 : errno;
  if (error != 0) fail("no room for " + std::to_string(bytes) + " bytes", error);
}

void OutputFile::write_at(size_t offset, const void* data, size_t bytes) {
  const char* from = static_cast<const char*>(data);
  for (size_t done = 0; done < bytes;) {
    const ssize_t n = ::pwrite(fd_, from + done, bytes - done, static_cast<off_t>(offset + done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail("cannot be written", errno);
    done += static_cast<size_t>(n);
  }
}

void OutputFile::append(std::string_view text) {
  write_at(end_, text.data(), text.size());
  end_ += text.size();
}

void OutputFile::commit() {
  require_unchanged_inputs();
  // Some file systems know no fsync(); what they have written they have.
  if (::fsync(fd_) != 0 && errno != EINVAL && errno != ENOSYS && errno != EOPNOTSUPP)
    fail("cannot be written", errno);
  take_place();
  ::close(fd_);
  fd_ = -1;
}

void OutputFile::take_place() {
  const bool done = overwrite_ ? ::rename(temporary_.c_str(), path_.c_str()) == 0
                               : rename_without_replacing(temporary_, path_);
  if (done) return;
  if (errno != EEXIST) fail("cannot be put in its place", errno);
  // Another's file has appeared: neither that nor the finished work is thrown away.
  fs::path kept = path_;
  kept += ".finished-" + std::to_string(::getpid());
  if (!rename_without_replacing(temporary_, kept)) kept = temporary_;
  ::close(fd_);
  fd_ = -1;
  refuse(path_.string(), "has appeared while this ran, expected no such file",
         "the result is " + kept.string() + "; move it where it belongs");
}

bool rename_without_replacing(const fs::path& from, const fs::path& to) {
  if (::link(from.c_str(), to.c_str()) == 0) return ::unlink(from.c_str()) == 0;
  if (errno == EEXIST) return false;
  // A file system without hard links: FAT, some of FUSE's.
  if (::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_NOREPLACE) == 0) return true;
  if (errno == EEXIST) return false;
  if (::faccessat(AT_FDCWD, to.c_str(), F_OK, AT_SYMLINK_NOFOLLOW) == 0) {
    errno = EEXIST;
    return false;
  }
  if (::rename(from.c_str(), to.c_str()) != 0) return false;
  notice(to.string() + ": was written, but its file system cannot promise that no other process's "
         "file was replaced");
  return true;
}

void write_text_file(const fs::path& path, std::string_view text, bool overwrite) {
  OutputFile file(path, overwrite);
  file.append(text);
  file.commit();
}

}  // namespace sinkref
