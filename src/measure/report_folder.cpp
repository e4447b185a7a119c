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

constexpr const char* unfinished = "unfinished";

/// The folder with one for figures.
std::filesystem::path made(const std::filesystem::path& path) {
  std::error_code error;
  create_directories(path / "figures", error);
  if (error)
    refuse(path.string(), "cannot be made: " + error.message() + ", expected a writable folder",
           "choose another place");
  return path;
}

/// Files besides those that a killed process was writing: the next OutputFile of their name removes them.
bool holds_files(const std::filesystem::path& figures) {
  std::error_code error;
  std::filesystem::directory_iterator entry(figures, error);
  for (const std::filesystem::directory_iterator end; !error && entry != end; entry.increment(error))
    if (entry->path().filename().string().find(".svg.partial-") == std::string::npos) return true;
  return false;
}

}  // namespace

Page report_page(const Experiment& experiment, const Results& results, const ordered_json& j) {
  const PageContext context{experiment, results};
  Page page{"Attention sinks and repeated tokens in " + experiment.model_name,
            introduction,
            context.report_command(),
            {{"program", j["program"]},
             {"arithmetic", std::to_string(arithmetic_version)},
             {"weights (SHA-256)", j["weights_sha256"]}},
            {},
            {},
            j["notes"],
            j.dump()};
  add_panels(context, panels(), page);
  return page;
}

void ReportFolder::require_free(const std::filesystem::path& path, bool force) {
  std::error_code error;
  if (force) return;
  if (exists(path / "report.json", error))
    refuse((path / "report.json").string(), "exists already, expected none",
           "choose another folder or add --force");
  // A report that was stopped while its files were getting their names is gone on with.
  const std::filesystem::path figures = path / "figures";
  if (holds_files(figures) && !Kept::writing_began(path / unfinished))
    refuse(figures.string(), "holds files already, expected none",
           "choose another folder or add --force");
}

ReportFolder::ReportFolder(const std::filesystem::path& path, bool force, const ordered_json& identity)
    : path_(made(path)),
      kept_(path / unfinished, identity, force),
      force_(force || Kept::writing_began(path / unfinished)),
      json_(path / "report.json", force_),
      html_(path / "report.html", force_),
      tensors_(path / "report.safetensors", force_) {}

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
  kept_.begin_writing();
  for (OutputFile& figure : figures) figure.commit();
  for (OutputFile* file : {&tensors_, &html_, &json_}) file->commit();  // the last says that all are there
  kept_.remove();
}

}  // namespace sinkref
