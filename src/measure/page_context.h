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
  /// The text in quotes, or that they are ids of their own where there is no tokenizer.
  std::string text_of_ids(const std::vector<int>& ids) const;

  // Commands as they can be pasted into a shell, in the folder where the report was made.
  std::string report_command(const std::string& more = {}) const;
  /// `sinkref sink` or `first-layer` on the same words.
  std::string study_command(const std::string& command, const std::string& more = {}) const;
  /// A command on ids.
  std::string model_command(const std::string& command, const std::vector<int>& tokens,
                            const std::string& more) const;
  /// The command that writes the tensors a figure is made from.
  std::string trace_command(const std::vector<int>& tokens, const std::string& hooks) const;
  std::string run_command(const std::string& condition, size_t word, const std::string& hooks) const;
  /// The ids of such a run, and what they are in words.
  std::vector<int> run_tokens(const std::string& condition, size_t word) const;
  std::string run_input(const std::string& condition, size_t word) const;
};

/// "after BOS, request", "with nothing before it"
std::string after_text(const std::string& condition);

/// What the norm along a run is read against: first token, half-way and typical.
std::vector<Rule> norm_rules(const SinkLayer& sink);

}  // namespace sinkref
