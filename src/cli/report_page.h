#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>

#include "cli/options.h"
#include "page/page.h"
#include "sinkref/model.h"
#include "base/output_file.h"

namespace sinkref::cli {

/// The page of a report; `j` is its report.json.
Page page_of(const Options& options, const Model& model, const ReportInputs& inputs,
             const Report& found, const std::optional<PaperComparison>& paper,
             const std::vector<GoldenResult>& goldens, const nlohmann::ordered_json& j);

/// The folder of a report. Its files are claimed before the work begins, and appear at its end.
class ReportFolder {
 public:
  ReportFolder(const std::filesystem::path& path, bool force);
  void write(const nlohmann::ordered_json& j, const Page& page, const Report& found);
  std::filesystem::path page() const { return path_ / "report.html"; }

 private:
  std::filesystem::path path_;
  bool force_;
  OutputFile json_, html_, tensors_;
};

}  // namespace sinkref::cli
