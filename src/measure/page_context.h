#pragma once

#include <string>
#include <vector>

#include "measure/experiment.h"
#include "page/chart.h"

namespace sinkref {

/// What a panel's part of the page is made from.
struct PageContext {
  const Experiment& experiment;
  const Results& results;

  const std::string& model() const { return experiment.model_name; }
  const Stimuli& stimuli() const { return experiment.stimuli; }
  const Stimuli::Condition& usual() const { return experiment.stimuli.usual(); }
  /// A token as text where there is a tokenizer: token "dust", token #17.
  std::string token_text(int id) const;
  std::string text(const std::vector<int>& ids) const;
  /// The command that writes the tensors a figure is made from.
  std::string trace_command(const std::vector<int>& tokens, const std::string& hooks) const;
  std::string run_command(const std::string& condition, size_t word, const std::string& hooks) const;
};

/// What the norm along a run is read against: first token, half-way and typical.
std::vector<Rule> norm_rules(const SinkLayer& sink);

}  // namespace sinkref
