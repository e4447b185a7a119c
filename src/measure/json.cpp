#include "measure/json.h"

#include <cmath>
#include <cstdio>
#include <cstdlib>

namespace sinkref {

using nlohmann::ordered_json;

ordered_json number(double value) {
  if (!std::isfinite(value)) return nullptr;
  char text[32];
  std::snprintf(text, sizeof text, "%.9g", value);
  return std::strtod(text, nullptr);
}

ordered_json numbers(const std::vector<double>& values) {
  ordered_json list = ordered_json::array();
  for (double value : values) list.push_back(number(value));
  return list;
}

namespace {

ordered_json inputs_json(const ReportInputs& inputs) {
  ordered_json words = ordered_json::array(), conditions = ordered_json::array();
  for (const SinkInputs::Word& word : inputs.sink.words)
    words.push_back({{"word", word.text}, {"token", word.token}});
  for (const ReportInputs::Condition& condition : inputs.conditions)
    conditions.push_back({{"name", condition.name},
                          {"prefix", condition.prefix},
                          {"repeats", condition.repeats}});
  ordered_json samples = ordered_json::array();
  for (const ReportInputs::Samples& set : inputs.samples)
    samples.push_back({{"kind", set.kind}, {"tokens", set.tokens}});
  return {{"text", inputs.sink.text},
          {"words", words},
          {"conditions", conditions},
          {"samples", samples}};
}

/// Today's flat list: the first condition, every word and sink.
ordered_json repeats_json(const Report& report, const ReportInputs& inputs) {
  ordered_json list = ordered_json::array();
  const std::string& condition = inputs.conditions[0].name;
  for (const RepeatRun& run : report.runs) {
    if (run.condition != condition || run.patched) continue;
    const std::vector<RepeatsNeeded> needed = repeats_needed(run, report.sinks);
    const RepeatRun* patched = report.find(run.word, condition, true);
    const std::vector<RepeatsNeeded> then =
        patched != nullptr ? repeats_needed(*patched, report.sinks) : std::vector<RepeatsNeeded>();
    for (size_t i = 0; i < needed.size(); ++i) {
      list.push_back({{"token", run.token},
                      {"word", run.word},
                      {"layer", needed[i].layer},
                      {"count", needed[i].count},
                      {"count_reached", needed[i].reached},
                      {"norm_last", number(needed[i].norm_last)}});
      if (!then.empty()) {
        list.back()["count_patched"] = then[i].count;
        list.back()["norm_last_patched"] = number(then[i].norm_last);
      }
    }
  }
  return list;
}

ordered_json repeat_task_json(const Report& report) {
  ordered_json list = ordered_json::array();
  for (const RepeatRun& run : report.runs)
    for (const Continuation& continuation : run.continuations) {
      ordered_json entry = {{"word", run.word},
                            {"token", run.token},
                            {"condition", run.condition},
                            {"patched", run.patched}};
      entry.update(to_json(continuation));
      list.push_back(entry);
    }
  return list;
}

}  // namespace

ordered_json panels_json(const Report& report, const ReportInputs& inputs, bool with_curves) {
  ordered_json j;
  j["lone_token"] = inputs.sink.lone.at(0);
  j["paper_rule_threshold"] = number(report.norms.threshold);
  j["paper_rule_layer"] = nullptr;
  const size_t by_rule = first_layer_above(report.norms, report.norms.threshold_notebook);
  if (by_rule < report.norms.mlp_first.size()) j["paper_rule_layer"] = by_rule;
  j["sink_layers"] = ordered_json::array();
  for (const SinkLayer& sink : report.sinks) j["sink_layers"].push_back(to_json(sink));
  j["patch"] = neurons_text(report.patch);
  j["repeats"] = repeats_json(report, inputs);
  j["next_token"] = ordered_json::array();
  for (const NextToken& next : report.next) j["next_token"].push_back(to_json(next));
  j["sink_metric"] = ordered_json::array();
  for (const SinkMetric& metric : report.metrics) j["sink_metric"].push_back(to_json(metric));
  j["massive_activations"] = ordered_json::array();
  for (const MassiveLayer& layer : report.massive)
    j["massive_activations"].push_back(to_json(layer));
  if (!with_curves) return j;
  j["inputs"] = inputs_json(inputs);
  j["layers"] = to_json(report.norms);
  j["repeat_task"] = repeat_task_json(report);
  j["norms_by_repeats"] = ordered_json::array();
  for (const RepeatRun& run : report.runs)
    j["norms_by_repeats"].push_back(run_json(run, report.sinks, true));
  j["attention"] = to_json(report.attention);
  if (report.first_layer) j["first_layer"] = to_json(*report.first_layer);
  if (report.clusters) j["cluster_attack"] = to_json(*report.clusters);
  if (report.patch_effect) j["patch_effect"] = to_json(*report.patch_effect, with_curves);
  if (report.what_if) j["softmax_what_if"] = to_json(*report.what_if, report.sinks, true);
  return j;
}

}  // namespace sinkref
