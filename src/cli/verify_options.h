#pragma once

#include "cli/shared_options.h"

namespace sinkref::cli {

struct VerifyCommand : RunningCommand {
  std::vector<std::string> traces, goldens;
  std::optional<std::string> candidate, budget, write_budget, html, perturb;
  std::string require, candidate_dtype = "auto", candidate_cache = "auto";
  bool self = false, exact = false, force = false, certify = false;

  OptionTable table() override;
  int run() const override;
  bool needs_model() const override { return traces.empty(); }

 private:
  void check_options() const;
};

/// --self
int verify_self(const VerifyCommand& options);

}  // namespace sinkref::cli
