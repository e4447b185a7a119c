#include "measure/report_folder.h"

#include <list>
#include <nlohmann/json.hpp>

#include "measure/panels.h"
#include "sinkref/error.h"

namespace sinkref {

using nlohmann::ordered_json;

namespace {

constexpr const char* introduction =
    "Language models give the first token of a text an unusual role: it receives a huge residual "
    "vector from a few neurons, and later layers park their attention on it (the attention sink). A "
    "long run of one repeated word can set the same neurons off. This page measures both, panel by "
    "panel, after <a href=\"https://arxiv.org/abs/2503.08908\">Yona et al., Interpreting the "
    "Repeated Token Phenomenon in Large Language Models (ICML 2025)</a>.";

/// The folder with one for figures, in which there must be none that would stop the end of the work.
std::filesystem::path made(const std::filesystem::path& path, bool force) {
  const std::filesystem::path figures = path / "figures";
  std::error_code error;
  if (!force && is_directory(figures, error) && !is_empty(figures, error))
    refuse(figures.string(), "holds files already, expected none",
           "choose another folder or add --force");
  create_directories(figures, error);
  if (error)
    refuse(path.string(), "cannot be made: " + error.message() + ", expected a writable folder",
           "choose another place");
  return path;
}

}  // namespace

Page report_page(const Experiment& experiment, const Results& results, const std::string& command,
                 const ordered_json& j) {
  Page page{"Attention sinks and repeated tokens in " + experiment.model_name,
            introduction,
            command,
            {{"program", j["program"]},
             {"arithmetic", std::to_string(arithmetic_version)},
             {"weights (SHA-256)", j["weights_sha256"]}},
            {},
            {},
            j.dump()};
  add_panels({experiment, results}, panels(), page);
  return page;
}

ReportFolder::ReportFolder(const std::filesystem::path& path, bool force)
    : path_(made(path, force)),
      force_(force),
      json_(path / "report.json", force),
      html_(path / "report.html", force),
      tensors_(path / "report.safetensors", force) {}

void ReportFolder::write(const ordered_json& j, const Page& page, const Results& results) {
  // All are written before any is committed, so that a full disk leaves none of them.
  std::list<OutputFile> figures;
  for (const Section& section : page.sections)
    for (const Figure& figure : section.figures)
      figures.emplace_back(path_ / "figures" / (figure.id + ".svg"), force_)
          .append(figure_svg(figure));
  write_tensors(tensors_, panel_tensors(results, panels()),
                {{"model", j["model"]},
                 {"weights_sha256", j["weights_sha256"]},
                 {"arithmetic_version", std::to_string(arithmetic_version)}});
  html_.append(page_html(page));
  json_.append(j.dump() + "\n");
  for (OutputFile& figure : figures) figure.commit();
  for (OutputFile* file : {&tensors_, &html_, &json_}) file->commit();
}

}  // namespace sinkref
