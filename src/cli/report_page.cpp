#include "cli/report_page.h"

#include <list>

#include "measure/tensors.h"
#include "sinkref/error.h"
#include "sinkref/tokenizer.h"

namespace sinkref::cli {

using nlohmann::ordered_json;

namespace {

std::vector<Section> sections_of(const PageContext& context) {
  std::vector<Section> sections = {repeat_task_section(context), norms_section(context),
                                   attention_section(context), sinks_section(context)};
  if (context.report.first_layer) sections.push_back(first_layer_section(context));
  if (!context.report.next.empty()) sections.push_back(patch_section(context));
  if (context.report.what_if) sections.push_back(softmax_section(context));
  return sections;
}

/// The command as it can be typed again: what changes a number, nothing of this machine.
std::string command_text(const Options& options, const std::string& model) {
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

/// Ids as text where there is a tokenizer.
struct TokenNames {
  std::unique_ptr<Tokenizer> tokenizer;

  explicit TokenNames(const Options& options, const Model& model) {
    if (!options.tokens && !options.tokens_file) tokenizer = Tokenizer::open(model.checkpoint());
  }
  std::string one(int id) const {
    return tokenizer ? "token \"" + tokenizer->decode(std::vector<int>{id}) + "\""
                     : "token #" + std::to_string(id);
  }
  std::string all(const std::vector<int>& ids) const {
    if (tokenizer) return valid_utf8(tokenizer->decode(ids));
    std::string text;
    for (int id : ids) text += (text.empty() ? "#" : " #") + std::to_string(id);
    return text;
  }
  /// A cut may fall inside a character.
  static std::string valid_utf8(std::string text) {
    return nlohmann::json::parse(nlohmann::json(text).dump(
        -1, ' ', false, nlohmann::json::error_handler_t::replace)).get<std::string>();
  }
};

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

Page page_of(const Options& options, const Model& model, const ReportInputs& inputs,
             const Report& found, const std::optional<PaperComparison>& paper,
             const std::vector<GoldenResult>& goldens, const ordered_json& j) {
  const TokenNames names(options, model);
  const std::string model_name = j["model"];
  const PageContext context{found, inputs, model_name, [&](int id) { return names.one(id); },
                            [&](const std::vector<int>& ids) { return names.all(ids); }};
  Page page{"Attention sinks and repeated tokens in " + model_name,
            command_text(options, model_name),
            {{"program", j["program"]},
             {"arithmetic", std::to_string(arithmetic_version)},
             {"weights (SHA-256)", j["weights_sha256"]}},
            findings_of(context),
            sections_of(context),
            j.dump()};
  if (paper) {
    page.findings.push_back(paper_finding(*paper));
    page.sections.push_back(paper_section(*paper));
  }
  if (!goldens.empty()) {
    page.findings.push_back(goldens_finding(goldens));
    page.sections.push_back(goldens_section(goldens));
  }
  return page;
}

ReportFolder::ReportFolder(const std::filesystem::path& path, bool force)
    : path_(made(path, force)),
      force_(force),
      json_(path / "report.json", force),
      html_(path / "report.html", force),
      tensors_(path / "report.safetensors", force) {}

void ReportFolder::write(const ordered_json& j, const Page& page, const Report& found) {
  // All are written before any is committed, so that a full disk leaves none of them.
  std::list<OutputFile> figures;
  for (const Section& section : page.sections)
    for (const Figure& figure : section.figures)
      figures.emplace_back(path_ / "figures" / (figure.id + ".svg"), force_)
          .append(figure_svg(figure));
  write_tensors(tensors_, tensors_of(found),
                {{"model", j["model"]},
                 {"weights_sha256", j["weights_sha256"]},
                 {"arithmetic_version", std::to_string(arithmetic_version)}});
  html_.append(page_html(page));
  json_.append(j.dump() + "\n");
  for (OutputFile& figure : figures) figure.commit();
  for (OutputFile* file : {&tensors_, &html_, &json_}) file->commit();
}

}  // namespace sinkref::cli
