#include "measure/json.h"
#include "measure/repeats/panel.h"

namespace sinkref {

using nlohmann::ordered_json;

namespace {

/// The usual condition, every word and sink.
ordered_json needed_json(const Experiment& experiment, const Results& results) {
  ordered_json list = ordered_json::array();
  const std::string& condition = experiment.stimuli.usual().name;
  for (const RepeatRun& run : results.runs) {
    if (run.condition != condition || run.patched) continue;
    const std::vector<RepeatsNeeded> needed = repeats_needed(run, results.sinks);
    const RepeatRun* patched = results.run_of(run.word, condition, true);
    const std::vector<RepeatsNeeded> then =
        patched != nullptr ? repeats_needed(*patched, results.sinks) : std::vector<RepeatsNeeded>();
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

}  // namespace

ordered_json run_json(const RepeatRun& run, const std::vector<SinkLayer>& sinks,
                      bool with_curves) {
  ordered_json layers = ordered_json::array();
  for (const RepeatsNeeded& needed : repeats_needed(run, sinks)) {
    layers.push_back({{"layer", needed.layer},
                      {"count", needed.count},
                      {"count_reached", needed.reached},
                      {"norm_last", number(needed.norm_last)},
                      {"norm_largest", number(needed.norm_largest)}});
    if (with_curves) layers.back()["norms"] = numbers(run.norms[needed.layer]);
  }
  return {{"word", run.word},
          {"token", run.token},
          {"condition", run.condition},
          {"patched", run.patched},
          {"layers", layers}};
}

void repeats_json(const Experiment& experiment, const Results& results, bool with_curves,
                  ordered_json& j) {
  j["repeats"] = needed_json(experiment, results);
  if (!with_curves) return;
  j["norms_by_repeats"] =
      each(results.runs, [&](const RepeatRun& run) { return run_json(run, results.sinks, true); });
}

}  // namespace sinkref
