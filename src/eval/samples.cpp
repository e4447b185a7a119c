// Samples files: written line by line, resumed after a kill, merged from shards.

#include "eval/samples.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/json_file.h"
#include "base/mapped_file.h"
#include "base/notice.h"
#include "base/output_file.h"
#include "base/sha256.h"
#include "checkpoint/metadata.h"
#include "sinkref/error.h"

namespace sinkref {

namespace fs = std::filesystem;
using nlohmann::json;
using nlohmann::ordered_json;

namespace {

constexpr size_t largest_file = size_t{8} << 30, largest_info = size_t{16} << 20;
constexpr size_t most_items = 1'000'000'000;

[[noreturn]] void fail(const fs::path& file, const std::string& action, int error) {
  refuse(file.string(), action + ": " + std::strerror(error) + ", expected a writable file",
         "what is in it stays: run the same command again to go on");
}

bool is_there(const fs::path& file) {
  std::error_code ignored;
  return fs::exists(fs::symlink_status(file, ignored));
}

RunInfo read_info(const fs::path& file) {
  const fs::path path = info_path(file);
  if (!is_there(path))
    refuse(path.string(), "is not there, and " + file.string() +
                              " does not say by itself which run it is of, expected both",
           "keep the two together");
  const std::string text = read_text_file(path, largest_info);
  if (!parse_json(text, path.string()).is_object())
    refuse(path.string(), "expected a JSON object that says which run this is");
  return RunInfo::parse(text);
}

/// Which run it is: not how files are called.
RunInfo identity(RunInfo run) {
  run.erase("model");
  if (const auto data = run.find("data"); data != run.end() && data->is_array())
    for (RunInfo& file : *data)
      if (file.is_object()) file.erase("name");
  return run;
}

std::string short_text(const RunInfo& value) {
  constexpr size_t longest = 200;
  const std::string text = value.dump(-1, ' ', false, RunInfo::error_handler_t::replace);
  return text.size() <= longest ? text : text.substr(0, longest) + "…";
}

/// The first setting that differs, as `patch is "none", here "2:90"`; empty if all are equal.
std::string difference(const RunInfo& found, const RunInfo& wanted) {
  if (json(found) == json(wanted)) return "";  // in whatever order their keys are
  for (const auto& [key, value] : wanted.items()) {
    const auto there = found.find(key);
    if (there == found.end()) return key + " is missing, here " + short_text(value);
    if (there->is_object() && value.is_object()) {
      if (const std::string inner = difference(*there, value); !inner.empty()) return key + ": " + inner;
    } else if (json(*there) != json(value)) {
      return key + " is " + short_text(*there) + ", here " + short_text(value);
    }
  }
  return "it has other settings";
}

}  // namespace

std::string sample_line(const Sample& sample) {
  ordered_json j = {{"task", sample.task}, {"id", sample.id}};
  if (!sample.subject.empty()) j["subject"] = sample.subject;
  j["variant"] = sample.variant;
  if (!sample.error.empty()) {
    j["error"] = sample.error;
  } else {
    j["ll"] = sample.ll;
    j["greedy"] = sample.greedy;
    if (sample.truncated > 0) j["truncated"] = sample.truncated;
  }
  for (const auto& [name, value] : sample.metrics) {
    if (value == 0 || value == 1) j[name] = static_cast<int>(value);
    else j[name] = value;
  }
  // Texts of errors may hold names of files, which need not be UTF-8.
  return j.dump(-1, ' ', false, ordered_json::error_handler_t::replace) + "\n";
}

Sample parse_sample(std::string_view line, const std::string& where) {
  try {
    parse_json(line, where);  // strict, and not too deep
    const ordered_json j = ordered_json::parse(line);
    Sample sample;
    sample.task = j.at("task");
    sample.id = j.at("id");
    sample.subject = j.value("subject", "");
    sample.variant = j.at("variant");
    sample.error = j.value("error", "");
    if (sample.error.empty()) {
      sample.ll = j.at("ll").get<std::vector<double>>();
      sample.greedy = j.at("greedy").get<std::vector<uint8_t>>();
      sample.truncated = j.value("truncated", size_t{0});
    }
    for (const auto& [key, value] : j.items())
      if (key.starts_with("acc")) sample.metrics.push_back({key, value.get<double>()});
    if (sample_line(sample) == std::string(line) + "\n") return sample;
  } catch (const std::exception&) {
  }
  refuse(where, "is no line of a samples file, expected one as eval writes it",
         "remove the file or add --force");
}

std::string tokenizer_sha256(const Checkpoint& checkpoint) {
  Sha256 hash;
  const auto add = [&](const std::string& text) {
    const uint64_t size = text.size();
    hash.update(&size, sizeof size);
    hash.update(text.data(), text.size());
  };
  const auto metadata = checkpoint.whole_metadata();  // a loop over the temporary would outlive it
  for (const auto& [key, value] : metadata->gguf) {
    if (!key.starts_with("tokenizer.")) continue;
    add(key);
    add(value.dump(-1, ' ', false, json::error_handler_t::replace));
  }
  if (metadata->gguf.empty())
    for (const char* name : {"tokenizer.model", "tokenizer.json", "tokenizer_config.json",
                             "special_tokens_map.json", "added_tokens.json"}) {
      add(name);
      add(is_there(checkpoint.path() / name) ? read_text_file(checkpoint.path() / name) : "");
    }
  return hash.finish();
}

std::string run_info_text(const RunInfo& info) {
  return info.dump(1, ' ', false, RunInfo::error_handler_t::replace) + "\n";
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
    refuse("--samples " + quoted(file.string()), "is no name of a file, expected one",
           "choose another name");
  open_partial(force);
  try {
    if (force && is_there(file_) && ::unlink(file_.c_str()) != 0)
      fail(file_, "cannot be removed", errno);
    require_own_run(info);
    if (is_there(file_)) {  // this very run, finished before
      read_found(file_, true);
      ::unlink(partial_.c_str());
      ::close(fd_);
      fd_ = -1;
      return;
    }
    write_text_file(info_path(file_), run_info_text(info), true);
    const size_t whole = read_found(partial_, false);
    if (::ftruncate(fd_, static_cast<off_t>(whole)) != 0) fail(partial_, "cannot be shortened", errno);
    if (::lseek(fd_, 0, SEEK_END) < 0) fail(partial_, "cannot be appended to", errno);
  } catch (...) {
    struct stat status {};
    if (::fstat(fd_, &status) == 0 && status.st_size == 0) ::unlink(partial_.c_str());
    ::close(fd_);
    throw;
  }
}

SampleFile::~SampleFile() {
  if (fd_ >= 0) ::close(fd_);
}

/// Opens it, or makes it, as its only writer. What a link of its name points to is never touched.
void SampleFile::open_partial(bool force) {
  for (bool fresh = !force;;) {
    fd_ = ::open(partial_.c_str(),
                 O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | (force && fresh ? O_EXCL : 0),
                 0644);
    const int error = fd_ < 0 ? errno : 0;
    struct stat opened {}, named {};
    const bool regular = fd_ >= 0 && ::fstat(fd_, &opened) == 0 && S_ISREG(opened.st_mode);
    if (regular) lock_partial();
    if (force && !fresh && (regular || is_there(partial_))) {
      if (fd_ >= 0) ::close(fd_);
      if (::unlink(partial_.c_str()) != 0 && errno != ENOENT) fail(partial_, "cannot be removed", errno);
      fresh = true;
      continue;
    }
    if (error == ELOOP)
      refuse(partial_.string(), "is a link, expected a file or none", "remove it or choose another name");
    if (error != 0) fail(partial_, "cannot be created", error);
    if (!regular) {
      ::close(fd_);
      refuse(partial_.string(), "is no regular file, expected one or none",
             "remove it or choose another name");
    }
    // Who held the lock may have given the file its final name meanwhile.
    if (::lstat(partial_.c_str(), &named) == 0 && named.st_ino == opened.st_ino &&
        named.st_dev == opened.st_dev)
      return;
    ::close(fd_);
  }
}

void SampleFile::lock_partial() const {
  if (::flock(fd_, LOCK_EX | LOCK_NB) == 0) return;
  const int error = errno;
  if (error != EWOULDBLOCK && error != EINTR) {  // Lustre without -o flock, some of FUSE's
    notice(partial_.string() + ": its file system has no locks; see to it that no other process writes it");
    return;
  }
  ::close(fd_);
  refuse(partial_.string(), "another process is writing it, expected no other",
         "wait for it, or choose another name");
}

/// Throws InputError if results of another run are there.
void SampleFile::require_own_run(const RunInfo& info) const {
  struct stat status {};
  const bool begun = ::fstat(fd_, &status) == 0 && status.st_size > 0;
  for (const fs::path& old : {file_, partial_}) {
    if (old == partial_ ? !begun : !is_there(old)) continue;
    const std::string other = difference(identity(read_info(file_)), identity(info));
    if (!other.empty())
      refuse(old.string(), "belongs to another run (" + other + "), expected this one",
             "choose another name, or add --force to replace it");
  }
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
      refuse(where, "is not the item that comes next in this run, expected it",
             "remove the file or add --force");
    if (item.size() < per_item) continue;
    for (Sample& sample : item) found_.push_back(std::move(sample));
    item.clear();
    whole = end + 1;
  }
  if (all && (found_.size() != keys_.size() * per_item || whole != text.size()))
    refuse(file.string(), "is not complete, expected every item", "remove it or add --force");
  return whole;
}

void SampleFile::append(const std::vector<Sample>& samples) {
  require_unchanged_inputs();
  std::string text;
  for (const Sample& sample : samples) text += sample_line(sample);
  for (size_t done = 0; done < text.size();) {
    const ssize_t n = ::write(fd_, text.data() + done, text.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail(partial_, "cannot be written", errno);
    done += static_cast<size_t>(n);
  }
  if (::fdatasync(fd_) != 0 && errno != EINVAL && errno != ENOSYS && errno != EOPNOTSUPP)
    fail(partial_, "cannot be written", errno);
}

void SampleFile::finish() {
  require_unchanged_inputs();
  if (!rename_without_replacing(partial_, file_)) fail(file_, "cannot be put in its place", errno);
  ::close(fd_);
  fd_ = -1;
}

namespace {

struct Shard {
  fs::path file;
  size_t index, of, lines;
  RunInfo run;  ///< as of the unsharded run
};

Shard open_shard(const fs::path& file) {
  const std::string name = file.string();
  if (!is_there(file))
    refuse(name, "is not there, expected a shard's samples file",
           is_there(name + ".partial") ? "its run has not finished: run it again" : "check the path");
  RunInfo run = read_info(file);
  const auto place = run.find("shard");
  if (place == run.end() || !place->is_object())
    refuse(name, "is no shard, expected the result of eval --shard I/N", "give the files of all shards");
  const std::string info = info_path(file).string();
  const auto number = [&](const char* key) {
    const auto found = place->find(key);
    if (found == place->end() || !found->is_number_unsigned() || found->get<size_t>() > most_items)
      refuse(info, "\"shard\" has no whole number " + quoted(key) + ", expected one");
    return found->get<size_t>();
  };
  const size_t index = number("index"), of = number("of"), first = number("first"), end = number("end");
  const auto variants = run.find("variants");
  if (index >= of || first > end || variants == run.end() || !variants->is_array() || variants->empty() ||
      variants->size() > 2)
    refuse(info, "does not describe a shard, expected its index, its items and its variants");
  const size_t lines = (end - first) * variants->size();
  *place = nullptr;
  return {file, index, of, lines, std::move(run)};
}

/// By index, all of one run and none missing.
std::vector<Shard> open_shards(const std::vector<std::string>& files) {
  std::map<size_t, Shard> by_index;
  for (const std::string& file : files) {
    Shard shard = open_shard(file);
    const size_t index = shard.index;
    const Shard& first = by_index.empty() ? shard : by_index.begin()->second;
    const std::string other = difference(identity(shard.run), identity(first.run));
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
    if (lines != shard.lines || (!text.empty() && text.back() != '\n'))
      throw InputError(shard.file.string() + ": has " + std::to_string(lines) +
                       " whole lines, expected " + std::to_string(shard.lines) + "; run it again");
  }
  return shards.front().run;
}

}  // namespace sinkref
