#include "measure/kept.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>

#include "base/json_file.h"
#include "base/mapped_file.h"
#include "base/notice.h"
#include "base/output_file.h"
#include "base/sha256.h"
#include "sinkref/error.h"

namespace sinkref {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

namespace {

constexpr const char* request_name = "request.json";
constexpr const char* lock_name = "lock";
constexpr const char* extension = ".kept";
constexpr size_t hash_length = 64;

std::string sha256(std::string_view a, std::string_view b = {}) {
  Sha256 hash;
  hash.update(a.data(), a.size());
  hash.update(b.data(), b.size());
  return hash.finish();
}

/// The first setting in which two requests differ.
std::string difference(const ordered_json& theirs, const ordered_json& ours) {
  for (const auto& [key, value] : ours.items())
    if (!theirs.contains(key) || theirs[key] != value) return key;
  return theirs.size() == ours.size() ? "" : "settings";
}

}  // namespace

Kept::Kept(const fs::path& folder, const ordered_json& identity, bool replace) : folder_(folder) {
  const fs::path request = folder / request_name;
  std::error_code error;
  if (fs::is_symlink(folder, error))
    refuse(folder.string(), "is a link, expected a folder or none", "remove it or choose another --out");
  fs::create_directories(folder, error);
  if (error)
    refuse(folder.string(), "cannot be made: " + error.message() + ", expected a writable folder",
           "choose another place");
  lock_ = ::open((folder / lock_name).c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
  if (lock_ < 0)
    refuse((folder / lock_name).string(),
           std::string("cannot be created: ") + std::strerror(errno) + ", expected a writable folder",
           "choose another place");
  if (::flock(lock_, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
    ::close(lock_);
    refuse(folder.string(), "another process is making this report, expected no other",
           "wait for it, or choose another --out");
  }
  const std::string text = identity.dump(1) + "\n";
  identity_ = sha256(text);
  if (fs::exists(request, error)) {
    const std::string found = read_text_file(request);
    if (found != text) {
      const ordered_json theirs = ordered_json::parse(found, nullptr, false);
      const std::string where = theirs.is_object() ? difference(theirs, identity) : "unreadable";
      if (!replace) {
        ::close(lock_);
        refuse(folder.string(),
               "holds the unfinished report of another request (" + where + "), expected this one's or none",
               "choose another --out, or add --force to throw it away");
      }
      for (const fs::directory_entry& entry : fs::directory_iterator(folder, error))
        if (entry.path().filename() != lock_name) fs::remove(entry.path(), error);
    }
  }
  if (!fs::exists(request, error)) write_text_file(request, text, true);
  for (const fs::directory_entry& entry : fs::directory_iterator(folder, error))
    found_ += entry.path().extension() == extension && entry.path().stem() != "writing";
}

Kept::~Kept() {
  if (lock_ < 0) return;
  std::error_code ignored;
  size_t kept = 0;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder_, ignored))
    kept += entry.path().extension() == extension;
  if (kept == 0) remove();
  if (lock_ >= 0) ::close(lock_);
}

fs::path Kept::file_of(const std::string& stage) const { return folder_ / (stage + extension); }

std::optional<std::string> Kept::find(const std::string& stage) const {
  if (folder_.empty()) return std::nullopt;
  std::error_code error;
  if (!fs::is_regular_file(file_of(stage), error)) return std::nullopt;
  std::string text;
  try {
    text = read_text_file(file_of(stage), SIZE_MAX);
  } catch (const InputError&) {
    return std::nullopt;
  }
  if (text.size() < hash_length) return std::nullopt;
  const std::string hash = text.substr(text.size() - hash_length);
  text.resize(text.size() - hash_length);
  if (hash != sha256(identity_ + stage, text)) return std::nullopt;
  return text;
}

void Kept::put(const std::string& stage, const std::string& bytes) {
  if (folder_.empty()) return;
  try {
    OutputFile file(file_of(stage), true);
    file.append(bytes);
    file.append(sha256(identity_ + stage, bytes));
    file.commit();
  } catch (const InputError& e) {
    require_unchanged_inputs();
    if (!told_) notice(std::string(e.what()) + "; a report that is stopped will begin anew");
    told_ = true;
  }
}

bool Kept::writing_began(const fs::path& folder) {
  std::error_code error;
  return fs::exists(folder / (std::string("writing") + extension), error);
}

void Kept::remove() {
  if (folder_.empty()) return;
  std::error_code ignored;
  fs::remove_all(folder_, ignored);
}

}  // namespace sinkref
