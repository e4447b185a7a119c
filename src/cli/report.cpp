// report: everything that is measured, as files and as findings.

#include <cstdio>
#include <filesystem>
#include <iostream>
#include <nlohmann/json.hpp>

#include "base/sha256.h"
#include "cli/commands.h"
#include "cli/experiment.h"
#include "cli/inputs.h"
#include "cli/output.h"
#include "eval/samples.h"
#include "measure/goldens/panel.h"
#include "measure/paper/published.h"
#include "measure/panels.h"
#include "measure/report_folder.h"
#include "sinkref/error.h"
#include "sinkref/trace.h"

namespace sinkref::cli {

namespace {

std::string file_sha256(const std::string& file) {
  const std::string bytes = read_text_file(file, SIZE_MAX);
  Sha256 hash;
  hash.update(bytes.data(), bytes.size());
  return hash.finish();
}

/// Everything that decides a byte of the report, by contents and not by how a path is spelt.
nlohmann::ordered_json identity(const Experiment& e) {
  const Model& model = e.model;
  nlohmann::ordered_json j = provenance_json(e);
  j.erase("model");
  const auto metadata = trace_metadata(model, model.config().layers, e.precision, e.run.softmax);
  j["config"] = nlohmann::ordered_json::parse(metadata.at("config"));
  j["max_positions"] = model.config().max_positions;
  j["tokenizer_sha256"] = e.stimuli.tokenizer ? tokenizer_sha256(model.checkpoint()) : "";
  j["kernel"] = e.run.kernel == "openblas" ? "openblas" : "any";
  j["softmax"] = e.run.softmax == Softmax::one ? "one" : "standard";
  j["precision"] = e.precision;
  j["inputs"] = stimuli_json(e.stimuli);
  j["bos"] = static_cast<int>(e.stimuli.bos);
  j["patch"] = e.stimuli.patch ? neurons_text(*e.stimuli.patch) : "auto";
  j["paper"] = e.paper.value_or("");
  if (e.prover) j["certify"] = true;
  j["goldens"] = nlohmann::ordered_json::array();
  for (const std::string& golden : e.goldens)
    j["goldens"].push_back({valid_utf8(std::filesystem::path(golden).filename().string()), file_sha256(golden)});
  return j;
}

}  // namespace

int ReportCommand::run() const {
  const ReportCommand& options = *this;
  if (!options.out) throw InputError("--out is missing; expected the folder to write report.json to");
  ReportFolder::require_free(*options.out, options.force);
  if (options.paper) published_row(*options.paper);  // a wrong name shows before the work
  const Model model = open_model(options);
  const Experiment experiment = sink_experiment(options, model);
  for (const std::string& golden : options.goldens) require_golden_of(model, golden);
  ReportFolder folder(*options.out, options.force, identity(experiment));
  if (const size_t found = folder.kept().found(); found > 0)
    say("going on with an unfinished report: " + std::to_string(found) + " parts of it are there");
  const Results results = measure(experiment, panels(), folder.kept());
  const nlohmann::ordered_json j = panels_json(experiment, results, panels(), true);
  const Page page = report_page(experiment, results, j);
  folder.write(j, page, results);
  if (options.json) {
    std::cout << json_text(j) << '\n';
  } else {
    print_panels(experiment, results, panels(), false);
    std::puts("");
    for (const Finding& finding : page.findings) {
      std::printf("%s\n  %s\n", finding.question.c_str(), finding.answer.c_str());
      if (!finding.control.empty()) std::printf("  Control: %s\n", finding.control.c_str());
    }
    std::printf("\nWritten: %s\n", folder.page().c_str());
  }
  const Goldens* goldens = results.find<Goldens>();
  return goldens == nullptr || goldens->agree() ? 0 : 1;
}

}  // namespace sinkref::cli
