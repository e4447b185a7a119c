#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

namespace sinkref {

/// A file that appears complete or not at all: written under a temporary name beside its place and
/// renamed by commit(). Without commit() it vanishes, and what a killed process left of it goes when the
/// next one writes it. Every failure (no such folder, read-only, disk full, file exists and `overwrite`
/// is false) is an InputError that names the file.
class OutputFile {
 public:
  OutputFile(const std::filesystem::path& path, bool overwrite);
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  /// Claims the space at once, so that a full disk shows before hours of work.
  void resize(size_t bytes);
  void write_at(size_t offset, const void* data, size_t bytes);  ///< bytes from the file's start
  void append(std::string_view text);                            ///< behind what was appended
  /// Writes all to the disk and gives the file its name. Throws InputError if an input has been
  /// written to meanwhile (require_unchanged_inputs()).
  void commit();

 private:
  [[noreturn]] void fail(const std::string& action, int error) const;
  void open_temporary();
  void take_place();

  std::filesystem::path path_, temporary_;
  bool overwrite_;
  int fd_ = -1;
  size_t end_ = 0;
  size_t slot_ = SIZE_MAX;  ///< in the list of unfinished files
};

/// Gives `from` the name `to` where nothing has it: false, with errno, if that cannot be done. Says so
/// where the file system cannot promise that nothing is replaced.
bool rename_without_replacing(const std::filesystem::path& from, const std::filesystem::path& to);

/// Removes the temporary files of all OutputFiles that are not committed. It may be called from a
/// signal handler, and only before the process ends: the program does so when it is interrupted.
void remove_unfinished_files() noexcept;

/// The whole text at once.
void write_text_file(const std::filesystem::path& path, std::string_view text, bool overwrite);

}  // namespace sinkref
