#pragma once

#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "base/output_file.h"
#include "measure/experiment.h"
#include "page/page.h"

// The files that `sinkref report` leaves behind.

namespace sinkref {

/// report.html. `command` made it, `j` is its report.json.
Page report_page(const Experiment& experiment, const Results& results, const std::string& command,
                 const nlohmann::ordered_json& j);

/// The folder. Its files are claimed before the work begins, and appear at its end.
class ReportFolder {
 public:
  ReportFolder(const std::filesystem::path& path, bool force);
  void write(const nlohmann::ordered_json& j, const Page& page, const Results& results);
  std::filesystem::path page() const { return path_ / "report.html"; }

 private:
  std::filesystem::path path_;
  bool force_;
  OutputFile json_, html_, tensors_;
};

}  // namespace sinkref
