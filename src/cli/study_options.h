#pragma once

#include "cli/shared_options.h"

namespace sinkref::cli {

/// What sink, first-layer and report have in common: the runs of one word and what stands before.
struct StudyCommand : RunningCommand {
  std::vector<std::string> words;
  std::optional<std::string> prefix, paper;
  std::vector<std::string> goldens;
  size_t repeats = 1000;
  bool repeats_given = false;  ///< otherwise a short context may cut them
  bool certify = false;

 protected:
  StudyCommand() { chunk = 512; }
  OptionTable study_rows();
  OptionTable certify_row();
};

struct SinkCommand : StudyCommand {
  bool patch_effect = false;
  SinkCommand() { patch = "auto"; }
  OptionTable table() override;
  int run() const override;
};

struct FirstLayerCommand : StudyCommand {
  OptionTable table() override;
  int run() const override;
};

struct ReportCommand : StudyCommand {
  std::optional<std::string> out;
  bool force = false;
  ReportCommand() { patch = "auto"; }
  OptionTable table() override;
  int run() const override;
};

}  // namespace sinkref::cli
