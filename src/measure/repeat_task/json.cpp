#include "measure/json.h"
#include "measure/repeat_task/panel.h"

namespace sinkref {

using nlohmann::ordered_json;

namespace {

ordered_json to_json(const Continuation& continuation) {
  return {{"repeats", continuation.repeats},
          {"outcome", outcome_name(continuation.outcome)},
          {"kept", continuation.kept},
          {"probability", number(continuation.probability)},
          {"generated", continuation.generated}};
}

}  // namespace

void repeat_task_json(const Experiment&, const Results& results, bool with_curves, ordered_json& j) {
  if (!with_curves) return;
  ordered_json list = ordered_json::array();
  for (const RepeatRun& run : results.runs)
    for (const Continuation& continuation : run.continuations) {
      ordered_json entry = {{"word", run.word},
                            {"token", run.token},
                            {"condition", run.condition},
                            {"patched", run.patched}};
      entry.update(to_json(continuation));
      list.push_back(entry);
    }
  j["repeat_task"] = std::move(list);
}

}  // namespace sinkref
