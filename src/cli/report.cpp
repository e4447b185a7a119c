// sink and report: what was found, as a table, as JSON and as a page.

#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <iostream>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/first_layer.h"
#include "cli/goldens.h"
#include "cli/inputs.h"
#include "cli/patch_effect.h"
#include "cli/report_page.h"
#include "report/json.h"
#include "sinkref/error.h"
#include "base/output_file.h"
#include "sinkref/trace.h"

namespace sinkref::cli {

using nlohmann::ordered_json;

namespace {

ordered_json findings(const Options& options, const Model& model, const ReportInputs& inputs,
                      const Report& found, bool with_curves) {
  ordered_json j;
  j["model"] = std::filesystem::path(options.model).filename().string();
  j["weights_sha256"] = model.weights_sha256(model.config().layers);
  j["program"] = "sinkref " SINKREF_VERSION;
  j["arithmetic_version"] = arithmetic_version;
  j.update(panels_json(found, inputs, with_curves));
  return j;
}

/// With the tokens done of each run, where a person looks.
RunOptions watched_run(const Options& options) {
  RunOptions run = run_options(options);
  if (isatty(2))
    run.progress = [](size_t done, size_t all) {
      if (all > 256) std::cerr << "\r  " << done << " of " << all << " tokens" << (done == all ? "\r\033[K" : "");
    };
  return run;
}

std::string count_text(size_t n) { return n == 0 ? "-" : std::to_string(n); }

void print_sink_layers(const Report& found) {
  if (found.sinks.empty()) {
    std::puts("No sink: no layer's MLP gives the first token a norm far above ordinary text's by a "
              "few neurons.");
    return;
  }
  std::puts("Sink layers (strongest first; norms of the residual stream after the layer)\n"
            "  layer  first token   typical   ablated  paper's rule  massive  neurons");
  for (const SinkLayer& sink : found.sinks) {
    const MassiveLayer& massive = found.massive[sink.layer];
    std::printf("  %5zu  %11.1f  %8.1f  %8.1f  %-12s  %-7s  %s\n", sink.layer, sink.norm_first,
                sink.norm_typical, sink.norm_ablated, sink.by_paper ? "yes" : "no",
                massive.by_all ? "yes" : "no", list_text(sink.neurons).c_str());
  }
}

void print_repeats(const Report& found, const ReportInputs& inputs) {
  const std::string& condition = inputs.conditions[0].name;
  std::printf("\nRepeats of one word after %s (needed: first past the geometric mean of typical and "
              "first token)\n"
              "  word        layer  needed      norm  needed, patched  norm, patched\n",
              condition.c_str());
  for (const RepeatRun& run : found.runs) {
    if (run.condition != condition || run.patched) continue;
    const RepeatRun* patched = found.find(run.word, condition, true);
    if (patched == nullptr) continue;
    const std::vector<RepeatsNeeded> before = repeats_needed(run, found.sinks),
                                     after = repeats_needed(*patched, found.sinks);
    for (size_t i = 0; i < before.size(); ++i)
      std::printf("  %-10s  %5zu  %6s  %8.1f  %15s  %13.1f\n", run.word.c_str(), before[i].layer,
                  count_text(before[i].count).c_str(), before[i].norm_last,
                  count_text(after[i].count).c_str(), after[i].norm_last);
  }
}

void print_next(const Report& found) {
  std::printf("\nNext token after the run, original and with the patch %s\n"
              "  word        original          patched           total variation\n",
              neurons_text(found.patch).c_str());
  for (const NextToken& n : found.next)
    std::printf("  %-10s  %6d (p %.3f)   %6d (p %.3f)   %.3f\n", n.word.c_str(), n.original,
                n.original_probability, n.patched, n.patched_probability, n.total_variation);
}

void print_metrics(const Report& found) {
  std::printf("\nSink metric (heads that give position 0 more than 30 %% of their attention over "
              "%zu tokens)\n ", found.metrics[0].length);
  for (const SinkMetric& metric : found.metrics)
    std::printf(" %s %.1f %%", metric.kind.c_str(), metric.percent);
  std::puts("");
}

void print_findings(const Report& found, const ReportInputs& inputs) {
  print_sink_layers(found);
  print_metrics(found);
  if (found.sinks.empty()) return;
  print_repeats(found, inputs);
  print_next(found);
}

/// Panel 6; nothing where there is nothing to patch.
std::optional<PatchEffect> patch_effect(const Options& options, const Model& model,
                                        const ReportInputs& inputs, const Report& found) {
  if (found.patch.empty()) return std::nullopt;
  return measure_patch_effect(model, watched_run(options),
                              patch_effect_inputs(options, model, inputs, found), say);
}

/// Panel 5 of the report.
void add_first_layer(const Options& options, const Model& model, const ReportInputs& inputs,
                     Report& found) {
  const RunOptions run = watched_run(options);
  found.first_layer = analyse_first_layer<float>(
      model, run, first_layer_inputs(options, model, inputs.sink, found.sinks), say);
  if (!found.sinks.empty())
    found.clusters = attack_with_clusters(
        model, run, cluster_inputs(options, model, inputs.sink, found.sinks), say);
}

}  // namespace

int sink(const Options& options) {
  const Model model = open_model(options);
  const ReportInputs inputs = report_inputs(options, model);
  const Report found = analyse_sinks(model, watched_run(options), inputs, say);
  std::optional<PatchEffect> effect;
  if (options.patch_effect) effect = patch_effect(options, model, inputs, found);
  if (options.json) {
    ordered_json j = findings(options, model, inputs, found, false);
    if (effect) j["patch_effect"] = to_json(*effect, false);
    std::cout << j.dump(2) << '\n';
  } else {
    print_findings(found, inputs);
    if (effect) print_patch_effect(*effect, model);
  }
  return 0;
}

int report(const Options& options) {
  namespace fs = std::filesystem;
  if (!options.out) throw InputError("--out is missing; expected the folder to write report.json to");
  const fs::path file = fs::path(*options.out) / "report.json";
  std::error_code error;
  if (!options.force && fs::exists(file, error))
    throw InputError(file.string() + ": exists already; choose another folder or add --force");
  if (options.paper) published_row(*options.paper);  // a wrong name shows before the work
  const Model model = open_model(options);
  const ReportInputs inputs = report_inputs(options, model);
  for (const std::string& golden : options.goldens) require_golden_of(model, golden);
  ReportFolder folder(*options.out, options.force);
  Report found = analyse(model, watched_run(options), inputs, say);
  add_first_layer(options, model, inputs, found);
  found.patch_effect = patch_effect(options, model, inputs, found);
  ordered_json j = findings(options, model, inputs, found, true);
  std::optional<PaperComparison> paper;
  if (options.paper) paper = compare_with_paper(published_row(*options.paper), found, inputs);
  if (paper) j["paper"] = to_json(*paper);
  std::vector<GoldenResult> goldens;
  j["goldens"] = ordered_json::array();
  bool agrees = true;
  for (const std::string& golden : options.goldens) {
    say("golden " + golden);
    goldens.push_back(compare_with_golden(model, options.kernel, golden));
    j["goldens"].push_back(golden_json(goldens.back()));
    agrees &= goldens.back().agrees;
  }
  const Page page = page_of(options, model, inputs, found, paper, goldens, j);
  folder.write(j, page, found);
  if (options.json) {
    std::cout << j.dump(2) << '\n';
  } else {
    print_findings(found, inputs);
    print_goldens(goldens);
    std::puts("");
    for (const Finding& finding : page.findings)
      std::printf("%s\n  %s\n", finding.question.c_str(), finding.answer.c_str());
    std::printf("\nWritten: %s\n", folder.page().c_str());
  }
  return agrees ? 0 : 1;
}

}  // namespace sinkref::cli
