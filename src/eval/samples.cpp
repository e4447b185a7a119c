// Samples files: written line by line, resumed after a kill, merged from shards.

#include "eval/samples.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/json_file.h"
#include "sinkref/error.h"
#include "base/output_file.h"

namespace sinkref {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

namespace {

constexpr size_t largest_file = size_t{8} << 30;

[[noreturn]] void fail(const fs::path& file, const std::string& action) {
  throw InputError(file.string() + ": " + action + ": " + std::strerror(errno) +
                   "; what is in it stays: run the same command again to go on");
}

RunInfo read_info(const fs::path& file) {
  const fs::path path = info_path(file);
  std::error_code ignored;
  if (!fs::exists(path, ignored))
    throw InputError(path.string() + ": is not there, and " + file.string() +
                     " does not say by itself which run it is of; keep the two together");
  return ordered_json::parse(read_text_file(path), nullptr, false);
}

/// The first setting that differs, as `patch is "none", here "2:90"`; empty if all are equal.
std::string difference(const RunInfo& found, const RunInfo& wanted) {
  if (found == wanted) return "";
  if (!found.is_object()) return "its .run.json is not valid";
  for (const auto& [key, value] : wanted.items()) {
    const std::string there = found.contains(key) ? found[key].dump() : "missing";
    if (there != value.dump()) return key + " is " + there + ", here " + value.dump();
  }
  return "it has other settings";
}

}  // namespace

std::string sample_line(const Sample& sample) {
  ordered_json j = {{"task", sample.task}, {"id", sample.id}};
  if (!sample.subject.empty()) j["subject"] = sample.subject;
  j["variant"] = sample.variant;
  j["ll"] = sample.ll;
  j["greedy"] = sample.greedy;
  for (const auto& [name, value] : sample.metrics) {
    if (value == 0 || value == 1) j[name] = static_cast<int>(value);
    else j[name] = value;
  }
  return j.dump() + "\n";
}

Sample parse_sample(std::string_view line, const std::string& where) {
  try {
    const ordered_json j = ordered_json::parse(line);
    Sample sample{j.at("task"), j.at("id"), j.value("subject", ""), j.at("variant"),
                  j.at("ll"),   j.at("greedy"), {}};
    for (const auto& [key, value] : j.items())
      if (key.starts_with("acc")) sample.metrics.push_back({key, value.get<double>()});
    if (sample_line(sample) != std::string(line) + "\n") throw InputError("");
    return sample;
  } catch (const std::exception&) {
    throw InputError(where + ": is no line of a samples file; remove the file or add --force");
  }
}

fs::path info_path(const fs::path& file) { return file.string() + ".run.json"; }

SampleFile::SampleFile(const fs::path& file, const RunInfo& info,
                       std::vector<std::pair<std::string, std::string>> keys,
                       std::vector<std::string> variants, bool force)
    : file_(file),
      partial_(file.string() + ".partial"),
      keys_(std::move(keys)),
      variants_(std::move(variants)) {
  std::error_code ignored;
  if (file.empty() || fs::is_directory(file, ignored))
    throw InputError("--samples " + quoted(file.string()) + ": expected the name of a file");
  for (const fs::path& old : {file_, partial_}) {
    if (force || !fs::exists(fs::symlink_status(old, ignored))) continue;
    const std::string other = difference(read_info(file_), info);
    if (!other.empty())
      throw InputError(old.string() + ": belongs to another run (" + other +
                       "); choose another name, or add --force to replace it");
  }
  open_partial();
  if (force) {
    fs::remove(file_, ignored);
    if (::ftruncate(fd_, 0) != 0) fail(partial_, "cannot be emptied");
  }
  if (fs::exists(file_, ignored)) {  // this very run, finished before
    read_found(file_, true);
    fs::remove(partial_, ignored);
    ::close(fd_);
    fd_ = -1;
    return;
  }
  write_text_file(info_path(file_), info.dump(1) + "\n", true);
  const size_t whole = read_found(partial_, false);
  if (::ftruncate(fd_, static_cast<off_t>(whole)) != 0) fail(partial_, "cannot be shortened");
  if (::lseek(fd_, 0, SEEK_END) < 0) fail(partial_, "cannot be appended to");
}

SampleFile::~SampleFile() {
  if (fd_ >= 0) ::close(fd_);
}

void SampleFile::open_partial() {
  fd_ = ::open(partial_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (fd_ < 0) fail(partial_, "cannot be created");
  if (::flock(fd_, LOCK_EX | LOCK_NB) != 0)
    throw InputError(partial_.string() + ": another process is writing it; wait for it, or choose "
                     "another name");
}

/// Reads whole items; returns where they end. `all`: anything less is an error.
size_t SampleFile::read_found(const fs::path& file, bool all) {
  const std::string text = read_text_file(file, largest_file);
  const size_t per_item = variants_.size();
  size_t whole = 0;
  std::vector<Sample> item;
  for (size_t begin = 0, end; (end = text.find('\n', begin)) != text.npos; begin = end + 1) {
    const std::string where =
        file.string() + ":" + std::to_string(found_.size() + item.size() + 1);
    item.push_back(parse_sample(std::string_view(text).substr(begin, end - begin), where));
    const size_t index = found_.size() / per_item;
    if (index >= keys_.size() || item.back().task != keys_[index].first ||
        item.back().id != keys_[index].second ||
        item.back().variant != variants_[item.size() - 1])
      throw InputError(where + ": is not the item that comes next in this run; remove the file or "
                       "add --force");
    if (item.size() < per_item) continue;
    for (Sample& sample : item) found_.push_back(std::move(sample));
    item.clear();
    whole = end + 1;
  }
  if (all && (found_.size() != keys_.size() * per_item || whole != text.size()))
    throw InputError(file.string() + ": is not complete; remove it or add --force");
  return whole;
}

void SampleFile::append(const std::vector<Sample>& samples) {
  std::string text;
  for (const Sample& sample : samples) text += sample_line(sample);
  for (size_t done = 0; done < text.size();) {
    const ssize_t n = ::write(fd_, text.data() + done, text.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail(partial_, "cannot be written");
    done += static_cast<size_t>(n);
  }
  if (::fdatasync(fd_) != 0) fail(partial_, "cannot be written");
}

void SampleFile::finish() {
  if (::rename(partial_.c_str(), file_.c_str()) != 0) fail(partial_, "cannot be renamed");
  ::close(fd_);
  fd_ = -1;
}

namespace {

struct Shard {
  fs::path file;
  size_t index, of, items;
  RunInfo run;  ///< as of the unsharded run
};

Shard open_shard(const fs::path& file) {
  const std::string name = file.string();
  if (!fs::exists(file))
    throw InputError(name + ": is not there; " +
                     (fs::exists(name + ".partial") ? "its run has not finished: run it again"
                                                    : "expected a shard's samples file"));
  RunInfo run = read_info(file);
  try {
    const RunInfo place = run.at("shard");
    run.at("shard") = nullptr;
    return {file, place.at("index"), place.at("of"),
            place.at("end").get<size_t>() - place.at("first").get<size_t>(), run};
  } catch (const nlohmann::json::exception&) {
    throw InputError(name + ": is no shard; expected the result of eval --shard I/N");
  }
}

/// By index, all of one run and none missing.
std::vector<Shard> open_shards(const std::vector<std::string>& files) {
  std::map<size_t, Shard> by_index;
  for (const std::string& file : files) {
    Shard shard = open_shard(file);
    const size_t index = shard.index;
    const Shard& first = by_index.empty() ? shard : by_index.begin()->second;
    const std::string other = difference(shard.run, first.run);
    if (!other.empty())
      throw InputError(file + ": is of another run than " + first.file.string() + " (" + other + ")");
    if (shard.of != first.of)
      throw InputError(file + ": is one of " + std::to_string(shard.of) + " shards, " +
                       first.file.string() + " of " + std::to_string(first.of));
    if (!by_index.insert({index, std::move(shard)}).second)
      throw InputError(file + ": shard " + std::to_string(index) + " is there twice");
  }
  std::vector<Shard> shards;
  const size_t count = by_index.begin()->second.of;
  for (size_t i = 0; i < count; ++i) {
    const auto found = by_index.find(i);
    if (found == by_index.end())
      throw InputError("--merge: shard " + std::to_string(i) + "/" + std::to_string(count) +
                       " is missing; give the files of all shards");
    shards.push_back(std::move(found->second));
  }
  return shards;
}

}  // namespace

RunInfo merge_shards(const std::vector<std::string>& files, std::vector<Sample>& samples) {
  const std::vector<Shard> shards = open_shards(files);
  for (const Shard& shard : shards) {
    const std::string text = read_text_file(shard.file, largest_file);
    size_t lines = 0;
    for (size_t begin = 0, end; (end = text.find('\n', begin)) != text.npos; begin = end + 1)
      samples.push_back(parse_sample(std::string_view(text).substr(begin, end - begin),
                                     shard.file.string() + ":" + std::to_string(++lines)));
    const size_t expected = shard.items * shard.run.at("variants").size();
    if (lines != expected || (!text.empty() && text.back() != '\n'))
      throw InputError(shard.file.string() + ": has " + std::to_string(lines) +
                       " whole lines, expected " + std::to_string(expected) + "; run it again");
  }
  return shards.front().run;
}

}  // namespace sinkref
