#pragma once

#include <functional>
#include <string>
#include <vector>

#include "page/chart.h"
#include "verify/golden.h"
#include "measure/paper/published.h"
#include "measure/report.h"

// What a page says, apart from how it looks: findings in plain words, and a section per panel.

namespace sinkref {

/// One line of the table at the top: a question anybody can ask, the answer, and how it is decided.
struct Finding {
  std::string question, answer, how, section;
};

struct Table {
  std::string caption;
  std::vector<std::string> head;
  std::vector<std::vector<std::string>> rows;
};

struct Section {
  std::string id, title, intro;
  std::vector<Figure> figures;
  std::vector<Table> tables;
};

/// What the builders need besides the report.
struct PageContext {
  const Report& report;
  const ReportInputs& inputs;
  std::string model;                             ///< file or folder name
  std::function<std::string(int)> token_text;    ///< "#17" where there is no tokenizer
  std::function<std::string(const std::vector<int>&)> text;

  const ReportInputs::Condition& usual() const { return inputs.conditions[0]; }
  /// The command that writes the tensors a figure is made from.
  std::string trace_command(const std::vector<int>& tokens, const std::string& hooks) const;
  std::string run_command(const std::string& condition, size_t word, const std::string& hooks) const;
};

Section repeat_task_section(const PageContext& context);
Section norms_section(const PageContext& context);
Section attention_section(const PageContext& context);
Section sinks_section(const PageContext& context);
Section first_layer_section(const PageContext& context);
Section patch_section(const PageContext& context);
Section softmax_section(const PageContext& context);
Section paper_section(const PaperComparison& paper);
Section goldens_section(const std::vector<GoldenResult>& goldens);

std::vector<Finding> findings_of(const PageContext& context);
Finding patch_finding(const PageContext& context);
Finding first_layer_finding(const PageContext& context);
Finding cluster_finding(const PageContext& context);
Finding paper_finding(const PaperComparison& paper);
Finding goldens_finding(const std::vector<GoldenResult>& goldens);

// Numbers and lists as the page writes them.
std::string plain(double value);  ///< 22712, 135.4, 0.031
std::string percent(double share);
std::string list_text(const std::vector<size_t>& values);
/// "a", "a and b", "a, b and c"
std::string joined_text(const std::vector<std::string>& parts);
std::string count_or_dash(size_t count);
/// What the norm along a run is read against: first token, half-way and typical.
std::vector<Rule> norm_rules(const SinkLayer& sink);
std::vector<double> counting(size_t n, size_t from = 0);  ///< from, from + 1, …

}  // namespace sinkref
