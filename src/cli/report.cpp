// report: everything that is measured, as files and as findings.

#include <cstdio>
#include <filesystem>
#include <iostream>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/experiment.h"
#include "cli/inputs.h"
#include "cli/output.h"
#include "measure/goldens/panel.h"
#include "measure/paper/published.h"
#include "measure/panels.h"
#include "measure/report_folder.h"
#include "sinkref/error.h"

namespace sinkref::cli {

namespace {

/// The command as it can be typed again: what changes a number, nothing of this machine.
std::string command_text(const ReportCommand& options, const std::string& model) {
  std::string text = "sinkref report --model " + model;
  if (options.tokens) text += " --tokens " + *options.tokens;
  if (options.tokens_file) text += " --tokens-file " + *options.tokens_file;
  if (options.prefix) text += " --prefix '" + *options.prefix + "'";
  for (const std::string& word : options.words) text += " --word '" + word + "'";
  if (options.repeats_given) text += " --repeats " + std::to_string(options.repeats);
  if (options.bos != BosPolicy::automatic)
    text += options.bos == BosPolicy::on ? " --bos on" : " --bos off";
  if (options.softmax == Softmax::one) text += " --softmax one";
  if (options.paper) text += " --paper " + *options.paper;
  return text + " --out DIR";
}

}  // namespace

int ReportCommand::run() const {
  const ReportCommand& options = *this;
  namespace fs = std::filesystem;
  if (!options.out) throw InputError("--out is missing; expected the folder to write report.json to");
  const fs::path file = fs::path(*options.out) / "report.json";
  std::error_code error;
  if (!options.force && fs::exists(file, error))
    throw InputError(file.string() + ": exists already; choose another folder or add --force");
  if (options.paper) published_row(*options.paper);  // a wrong name shows before the work
  const Model model = open_model(options);
  const Experiment experiment = sink_experiment(options, model);
  for (const std::string& golden : options.goldens) require_golden_of(model, golden);
  ReportFolder folder(*options.out, options.force);
  const Results results = measure(experiment, panels());
  const nlohmann::ordered_json j = panels_json(experiment, results, panels(), true);
  const Page page = report_page(experiment, results,
                                valid_utf8(command_text(options, experiment.model_name)), j);
  folder.write(j, page, results);
  if (options.json) {
    std::cout << json_text(j) << '\n';
  } else {
    print_panels(experiment, results, panels(), false);
    std::puts("");
    for (const Finding& finding : page.findings)
      std::printf("%s\n  %s\n", finding.question.c_str(), finding.answer.c_str());
    std::printf("\nWritten: %s\n", folder.page().c_str());
  }
  const Goldens* goldens = results.find<Goldens>();
  return goldens == nullptr || goldens->agree() ? 0 : 1;
}

}  // namespace sinkref::cli
