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
};
std::string sample_line(const Sample& sample);  ///< with its newline
Sample parse_sample(std::string_view line, const std::string& where);

/// What a run of eval is, so that results of different ones are never mixed: weights, data, settings,
/// and the shard. No times, threads or kernels: they change no byte. Kept as FILE.run.json.
using RunInfo = nlohmann::ordered_json;

/// The results of one run as they come, in FILE.partial, renamed to FILE at the end. A run that was
/// killed goes on where it stopped; a torn last line, or an item with only one of its variants,
/// counts as not done.
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
  void open_partial();
  size_t read_found(const std::filesystem::path& file, bool all);

  std::filesystem::path file_, partial_;
  std::vector<std::pair<std::string, std::string>> keys_;
  std::vector<std::string> variants_;
  std::vector<Sample> found_;
  int fd_ = -1;
};

std::filesystem::path info_path(const std::filesystem::path& file);

/// The samples of all shards in the order of the unsharded run, whose info it returns. Throws
/// InputError if the shards are of different runs, one is missing, twice there, or not finished.
RunInfo merge_shards(const std::vector<std::string>& files, std::vector<Sample>& samples);

}  // namespace sinkref
