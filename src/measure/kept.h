#pragma once

#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>

#include "base/archive.h"

// A report takes minutes to hours. What it has finished measuring is kept in a folder beside its files,
// so that the same command goes on after it was stopped, and ends with the same bytes.

namespace sinkref {

class Kept {
 public:
  Kept() = default;  ///< keeps nothing
  /// In `folder`, which is made. `identity`: everything that decides a byte of the result; what another
  /// request has left there is an InputError, unless `replace` throws it away. So is another process
  /// that is at work there.
  Kept(const std::filesystem::path& folder, const nlohmann::ordered_json& identity, bool replace);
  ~Kept();  ///< the folder goes if nothing was kept
  Kept(const Kept&) = delete;
  Kept& operator=(const Kept&) = delete;

  /// What find() would give; nothing where it is not whole.
  std::optional<std::string> find(const std::string& stage) const;
  /// Complete or not at all. Where it cannot be written the user is told once, and the work goes on.
  void put(const std::string& stage, const std::string& bytes);
  /// Stages that were found when it was opened.
  size_t found() const { return found_; }

  /// From here on files get their final names: after a stop these are the report's own.
  void begin_writing() { put("writing", ""); }
  static bool writing_began(const std::filesystem::path& folder);
  /// All is done.
  void remove();

 private:
  std::filesystem::path file_of(const std::string& stage) const;

  std::filesystem::path folder_;  // empty: keeps nothing
  std::string identity_;          // its hash
  int lock_ = -1;
  size_t found_ = 0;
  bool told_ = false;
};

/// The values of a stage: found, or measured and kept.
template <class Measure, class... T>
void kept_stage(Kept& kept, const std::string& stage, const Measure& measure, T&... values) {
  if (const std::optional<std::string> bytes = kept.find(stage)) {
    try {
      archive::Reader in(*bytes);
      (in.read(values), ...);
      if (in.at_end()) return;
    } catch (const archive::Mismatch&) {  // another build's: measured anew
    }
  }
  measure();
  std::string bytes;
  (archive::write(bytes, values), ...);
  kept.put(stage, bytes);
}

}  // namespace sinkref
