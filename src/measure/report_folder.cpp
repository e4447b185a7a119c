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

/// What a killed report had put in its place: report.json, the last, was not among it.
void remove_parts(const std::filesystem::path& path, const std::filesystem::path& figures) {
  std::error_code error;
  if (exists(path / "report.json", error)) return;
  for (const char* name : {"report.html", "report.safetensors"}) std::filesystem::remove(path / name, error);
  std::filesystem::directory_iterator entry(figures, error);
  for (const std::filesystem::directory_iterator end; !error && entry != end; entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    std::error_code ignored;
    if (name.ends_with(".svg") || name.find(".svg.partial-") != name.npos) std::filesystem::remove(entry->path(), ignored);
  }
}

/// The folder with one for figures, in which there must be none that would stop the end of the work.
std::filesystem::path made(const std::filesystem::path& path, bool force) {
  const std::filesystem::path figures = path / "figures";
  std::error_code error;
  if (was_abandoned(path / "report.json")) remove_parts(path, figures);
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
  std::vector<OutputFile*> in_order;
  for (OutputFile& figure : figures) in_order.push_back(&figure);
  in_order.insert(in_order.end(), {&tensors_, &html_, &json_});  // the last says that all are there
  commit_all(in_order);
}

}  // namespace sinkref
