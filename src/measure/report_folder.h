#pragma once

#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "base/output_file.h"
#include "measure/experiment.h"
#include "measure/kept.h"
#include "page/page.h"

// The files that `sinkref report` leaves behind.

namespace sinkref {

/// report.html. `j` is its report.json.
Page report_page(const Experiment& experiment, const Results& results, const nlohmann::ordered_json& j);

/// The folder. Its files are claimed before the work begins, and appear at its end. What is finished
/// until then is kept in its folder "unfinished".
class ReportFolder {
 public:
  /// InputError where the folder holds a report, or figures that no stopped report of ours has left.
  static void require_free(const std::filesystem::path& path, bool force);

  ReportFolder(const std::filesystem::path& path, bool force, const nlohmann::ordered_json& identity);
  Kept& kept() { return kept_; }
  void write(const nlohmann::ordered_json& j, const Page& page, const Results& results);
  std::filesystem::path page() const { return path_ / "report.html"; }

 private:
  std::filesystem::path path_;
  Kept kept_;
  bool force_;
  OutputFile json_, html_, tensors_;
};

}  // namespace sinkref
