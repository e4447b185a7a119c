#include "measure/json.h"

namespace sinkref {

using nlohmann::ordered_json;

ordered_json to_json(const NextToken& next) {
  return {{"word", next.word},
          {"token", next.token},
          {"original", next.original},
          {"original_probability", number(next.original_probability)},
          {"patched", next.patched},
          {"patched_probability", number(next.patched_probability)},
          {"total_variation", number(next.total_variation)}};
}

ordered_json to_json(const Continuation& continuation) {
  return {{"repeats", continuation.repeats},
          {"outcome", outcome_name(continuation.outcome)},
          {"kept", continuation.kept},
          {"probability", number(continuation.probability)},
          {"generated", continuation.generated}};
}

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

ordered_json to_json(const SoftmaxWhatIf& other, const std::vector<SinkLayer>& sinks,
                     bool with_curves) {
  ordered_json found = ordered_json::array();
  for (const SinkLayer& sink : other.sinks) found.push_back(to_json(sink));
  return {{"softmax", other.softmax == Softmax::one ? "one" : "standard"},
          {"layers", to_json(other.norms)},
          {"sink_layers", found},
          {"sink_metric", to_json(other.metric)},
          {"run", run_json(other.run, sinks, with_curves)}};
}

ordered_json to_json(const PaperComparison& paper) {
  ordered_json j = {{"model", paper.row.model},
                    {"published",
                     {{"layer", paper.row.layer},
                      {"neurons", paper.row.neurons},
                      {"repeats", paper.row.repeats},
                      {"norm_first", paper.row.norm},
                      {"norm_ablated", paper.row.norm_ablated}}},
                    {"measured", nullptr},
                    {"layer_agrees", paper.layer_agrees},
                    {"neurons_agree", paper.neurons_agree}};
  if (paper.found)
    j["measured"] = {{"layer", paper.layer},
                     {"neurons", paper.neurons},
                     {"repeats", number(paper.median_count)},
                     {"repeats_by_word", paper.counts},
                     {"norm_first", number(paper.norm)},
                     {"norm_ablated", number(paper.norm_ablated)}};
  return j;
}

}  // namespace sinkref
