#include "measure/panels.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "measure/attention/panel.h"
#include "measure/certified/panel.h"
#include "measure/cluster_attack/panel.h"
#include "measure/definitions/panel.h"
#include "measure/first_layer/panel.h"
#include "measure/goldens/panel.h"
#include "measure/json.h"
#include "measure/paper/panel.h"
#include "measure/patch/panel.h"
#include "measure/patch_effect/panel.h"
#include "measure/repeat_task/panel.h"
#include "measure/repeats/panel.h"
#include "measure/sinks/panel.h"
#include "measure/softmax/panel.h"

namespace sinkref {

using nlohmann::ordered_json;

namespace {

using Runs = Panel::Runs;

const std::vector<Panel> all_panels = {
    {.key = "repeat_task", .section = "repeat-task", .runs = Runs::tasks,
     .json = repeat_task_json, .page = repeat_task_page},
    {.key = "norms_by_repeats", .section = "norms", .runs = Runs::norms, .json = repeats_json,
     .page = repeats_page, .text = repeats_text, .tensors = repeats_tensors},
    {.key = "attention", .section = "attention", .watch = watch_attention,
     .watched = kept_results<AttentionMasses>(), .measure = measure_attention,
     .measured = kept_results<AttentionResult>(), .work = attention_work, .json = attention_json,
     .page = attention_page,
     .tensors = attention_tensors},
    {.key = "sink_layers", .section = "sinks", .json = sinks_json, .page = sinks_page,
     .text = sinks_text, .tensors = sinks_tensors},
    {.key = "sink_metric", .section = "sinks", .measure = measure_definitions,
     .measured = kept_results<Definitions>(), .work = definitions_work,
     .json = definitions_json, .page = definitions_page, .text = definitions_text,
     .tensors = definitions_tensors},
    {.key = "first_layer", .section = "first-layer", .measure = measure_first_layer,
     .measured = kept_results<FirstLayerInputs, FirstLayerResult>(), .work = first_layer_work,
     .json = first_layer_json, .page = first_layer_page, .text = first_layer_text,
     .long_text = true},
    {.key = "cluster_attack", .section = "first-layer", .needs = "a sink",
     .measure = measure_cluster_attack, .measured = kept_results<ClusterAttackResult>(),
     .work = cluster_attack_work, .json = cluster_attack_json, .page = cluster_attack_page,
     .text = cluster_attack_text, .long_text = true},
    {.key = "next_token", .section = "patch", .needs = "something to patch", .runs = Runs::norms,
     .measure = measure_patch, .json = patch_json, .page = patch_page, .text = patch_text},
    {.key = "patch_effect", .section = "patch", .needs = "something to patch",
     .runs = Runs::norms, .measure = measure_patch_effect, .measured = kept_results<PatchEffect>(),
     .work = patch_effect_work, .json = patch_effect_json,
     .page = patch_effect_page, .text = patch_effect_text, .long_text = true},
    {.key = "softmax_what_if", .section = "softmax", .measure = measure_softmax,
     .measured = kept_results<SoftmaxWhatIf>(), .work = softmax_work,
     .json = softmax_json, .page = softmax_page, .tensors = softmax_tensors},
    {.key = "paper", .section = "paper", .needs = "a row of the paper", .runs = Runs::norms,
     .measure = measure_paper, .json = paper_json, .page = paper_page},
    {.key = "certified", .section = "certified", .needs = "a sink and --certify", .runs = Runs::norms,
     .measure = measure_certified, .measured = kept_results<CertifiedClaims>(), .work = certified_work,
     .json = certified_json, .page = certified_page, .text = certified_text},
    {.key = "goldens", .section = "goldens", .needs = "golden files", .measure = measure_goldens,
     .measured = kept_results<Goldens>(), .work = goldens_work,
     .json = goldens_json, .page = goldens_page, .text = goldens_text},
};

/// Findings and lines begin with the sinks, which all others are about, and with what was found by
/// changing something: the causal results. Those that only describe follow.
constexpr std::string_view told_first[] = {"sink_layers",    "norms_by_repeats", "next_token", "patch_effect",
                                           "first_layer",    "cluster_attack",   "sink_metric", "attention"};
/// report.safetensors has had its tensors in this order from the first.
constexpr std::string_view stored_first[] = {"sink_layers", "sink_metric", "attention"};
/// What stands before the panels in report.json, and is all that `sink --json` prints.
constexpr const char* summaries[] = {"lone_token",  "paper_rule_threshold", "paper_rule_layer",
                                     "sink_layers", "patch",                "repeats",
                                     "next_token",  "sink_metric",          "massive_activations",
                                     "inputs",      "layers"};

/// Those named in `first`, in that order, then the rest as they stand.
template <class Keys>
std::vector<Panel> in_order(std::vector<Panel> panels, const Keys& first) {
  const auto place = [&](const Panel& panel) {
    return std::find(std::begin(first), std::end(first), panel.key) - std::begin(first);
  };
  std::stable_sort(panels.begin(), panels.end(),
                   [&](const Panel& a, const Panel& b) { return place(a) < place(b); });
  return panels;
}

/// The hooks that the panels add to the first run, and what these fill.
RunsWatch watch_of(const Experiment& experiment, const std::vector<Panel>& panels, Results& results) {
  std::vector<Panel> watching;
  for (const Panel& panel : panels)
    if (panel.watch != nullptr) watching.push_back(panel);
  return {[&experiment, &results, watching](Hooks<float>& hooks) {
            for (const Panel& panel : watching) panel.watch(experiment, results, hooks);
          },
          [&results, watching] {
            std::string bytes;
            for (const Panel& panel : watching) bytes += panel.watched.save(results);
            return bytes;
          },
          [&results, watching](const std::string& bytes) {
            archive::Reader in(bytes);
            for (const Panel& panel : watching) panel.watched.load(in, results);
          }};
}

void measure_panels(const Experiment& experiment, const std::vector<Panel>& panels, Kept& kept,
                    Results& results) {
  Progress& progress = *experiment.progress;
  for (const Panel& panel : panels) {
    if (panel.measure == nullptr) continue;
    const double work = panel.work == nullptr ? 0 : panel.work(experiment, results);
    const auto load = [&] {
      const std::optional<std::string> bytes = panel.measured.load ? kept.find(panel.key) : std::nullopt;
      if (!bytes) return false;
      try {
        archive::Reader in(*bytes);
        panel.measured.load(in, results);
        return in.at_end();
      } catch (const archive::Mismatch&) {  // another build's: measured anew
        return false;
      }
    };
    if (load()) {
      progress.skip(work);
      continue;
    }
    progress.end_step();
    const double end = progress.done() + work;
    panel.measure(experiment, results);
    if (work > 0) progress.settle(end);
    if (panel.measured.save) kept.put(panel.key, panel.measured.save(results));
  }
}

std::vector<std::string> notes_of(const Experiment& e) {
  std::vector<std::string> notes = e.model.config().notes;
  if (e.stimuli.tokenizer)
    for (const std::string& note : e.stimuli.tokenizer->notes())
      if (std::find(notes.begin(), notes.end(), note) == notes.end()) notes.push_back(note);
  return notes;
}

}  // namespace

const std::vector<Panel>& panels() { return all_panels; }

std::vector<Panel> panels_of(const std::vector<std::string_view>& keys) {
  std::vector<Panel> chosen;
  for (const Panel& panel : all_panels)
    if (std::find(keys.begin(), keys.end(), panel.key) != keys.end()) chosen.push_back(panel);
  if (chosen.size() != keys.size()) throw std::logic_error("a key is no panel's");
  return chosen;
}

Results measure(const Experiment& experiment, const std::vector<Panel>& panels, Kept& kept) {
  Results results;
  Progress& progress = *experiment.progress;
  // Until the sinks are known: about twenty times what finding them takes.
  progress.plan(20 * sinks_work(experiment));
  measure_sinks(experiment, kept, results);
  const auto any = [&](const auto& has) { return std::any_of(panels.begin(), panels.end(), has); };
  const bool tasks = any([](const Panel& p) { return p.runs == Runs::tasks; });
  const bool watched = any([](const Panel& p) { return p.watch != nullptr; });
  const bool norms = any([](const Panel& p) { return p.runs == Runs::norms; });
  // Norms along the runs are read against a sink's.
  const bool runs = tasks || watched || (norms && !results.sinks.empty());
  double all = progress.done() + (runs ? runs_work(experiment, results, tasks) : 0);
  for (const Panel& panel : panels)
    if (panel.work != nullptr) all += panel.work(experiment, results);
  progress.plan(all);
  if (runs) measure_runs(experiment, tasks, watch_of(experiment, panels, results), kept, results);
  measure_panels(experiment, panels, kept, results);
  progress.finish();
  return results;
}

ordered_json stimuli_json(const Stimuli& stimuli) {
  return {{"text", stimuli.sink.text},
          {"words", each(stimuli.sink.words,
                         [](const SinkInputs::Word& word) {
                           return ordered_json{{"word", word.text}, {"token", word.token}};
                         })},
          {"conditions", each(stimuli.conditions,
                              [](const Stimuli::Condition& condition) {
                                return ordered_json{{"name", condition.name},
                                                    {"prefix", condition.prefix},
                                                    {"repeats", condition.repeats}};
                              })},
          {"samples", each(stimuli.samples, [](const Stimuli::Samples& set) {
             return ordered_json{{"kind", set.kind}, {"tokens", set.tokens}};
           })}};
}

ordered_json provenance_json(const Experiment& e) {
  return {{"model", e.model_name},
          {"weights_sha256", e.model.weights_sha256(e.model.config().layers)},
          {"program", "sinkref " SINKREF_VERSION},
          {"arithmetic_version", arithmetic_version},
          {"notes", notes_of(e)}};
}

ordered_json panels_json(const Experiment& experiment, const Results& results,
                         const std::vector<Panel>& panels, bool with_curves) {
  ordered_json parts;
  if (with_curves) parts["inputs"] = stimuli_json(experiment.stimuli);
  for (const Panel& panel : panels)
    if (panel.json != nullptr) panel.json(experiment, results, with_curves, parts);
  ordered_json j = provenance_json(experiment);
  for (const char* key : summaries)
    if (parts.contains(key)) j[key] = std::move(parts[key]);
  for (auto part = parts.begin(); part != parts.end(); ++part)
    if (!j.contains(part.key())) j[part.key()] = std::move(part.value());
  return j;
}

void add_panels(const PageContext& context, const std::vector<Panel>& panels, Page& page) {
  for (const Panel& panel : in_order(panels, told_first))
    if (panel.page != nullptr) panel.page(context, page);
  for (Section& section : page.sections)
    section.number = static_cast<size_t>(
        std::find_if(all_panels.begin(), all_panels.end(),
                     [&](const Panel& panel) { return section.id == panel.section; }) -
        all_panels.begin());
  page.number_sections();
}

void print_panels(const Experiment& experiment, const Results& results,
                  const std::vector<Panel>& panels, bool long_ones) {
  for (const Panel& panel : in_order(panels, told_first))
    if (panel.text != nullptr && (long_ones || !panel.long_text)) panel.text(experiment, results);
}

std::vector<NamedTensor> panel_tensors(const Results& results, const std::vector<Panel>& panels) {
  std::vector<NamedTensor> all;
  for (const Panel& panel : in_order(panels, stored_first))
    if (panel.tensors != nullptr) panel.tensors(results, all);
  return all;
}

}  // namespace sinkref
