#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "eval/eval.h"

namespace sinkref {

/// One line of a samples file: an item under one variant ("original" or "patched").
struct Sample {
  std::string task, id, subject, variant;
  std::vector<double> ll;
  std::vector<uint8_t> greedy;
  Metrics metrics;
  size_t truncated = 0;  ///< tokens that were left out at the beginning: the context is too short
  std::string error;     ///< why the item could not be scored; then there is nothing but this
};
std::string sample_line(const Sample& sample);  ///< with its newline
Sample parse_sample(std::string_view line, const std::string& where);

/// What a run of eval is, so that results of different ones are never mixed: weights, configuration,
/// tokenizer, data, settings, and the shard. No times or threads: they change no byte. Kept as
/// FILE.run.json. Names of files are in it to be read; which run it is goes by their contents.
using RunInfo = nlohmann::ordered_json;

/// SHA-256 of all that a checkpoint's tokenizer is made from.
std::string tokenizer_sha256(const Checkpoint& checkpoint);

/// The results of one run as they come, in FILE.partial, renamed to FILE at the end. A run that was
/// killed goes on where it stopped; a torn last line, or an item with only one of its variants,
/// counts as not done. Where the file system knows no locks it says so and goes on.
class SampleFile {
 public:
  /// `keys`: the (task, id) of the items in order. Throws InputError if FILE or its partial belongs
  /// to another run (unless `force`), or is being written by another process.
  SampleFile(const std::filesystem::path& file, const RunInfo& info,
             std::vector<std::pair<std::string, std::string>> keys,
             std::vector<std::string> variants, bool force);
  ~SampleFile();
  SampleFile(const SampleFile&) = delete;
  SampleFile& operator=(const SampleFile&) = delete;

  bool complete() const { return fd_ < 0; }
  /// What was there already, whole items.
  const std::vector<Sample>& found() const { return found_; }
  void append(const std::vector<Sample>& samples);
  void finish();

 private:
  void open_partial(bool force);
  void lock_partial() const;
  void require_own_run(const RunInfo& info) const;
  size_t read_found(const std::filesystem::path& file, bool all);

  std::filesystem::path file_, partial_;
  std::vector<std::pair<std::string, std::string>> keys_;
  std::vector<std::string> variants_;
  std::vector<Sample> found_;
  int fd_ = -1;
};

std::string run_info_text(const RunInfo& info);  ///< as FILE.run.json has it
std::filesystem::path info_path(const std::filesystem::path& file);

/// The samples of all shards in the order of the unsharded run, whose info it returns. Throws
/// InputError if the shards are of different runs, one is missing, twice there, or not finished.
RunInfo merge_shards(const std::vector<std::string>& files, std::vector<Sample>& samples);

}  // namespace sinkref
