#include "measure/json.h"
#include "measure/patch/panel.h"

namespace sinkref {

using nlohmann::ordered_json;

namespace {

ordered_json to_json(const NextToken& next) {
  return {{"word", next.word},
          {"token", next.token},
          {"original", next.original},
          {"original_probability", number(next.original_probability)},
          {"patched", next.patched},
          {"patched_probability", number(next.patched_probability)},
          {"total_variation", number(next.total_variation)}};
}

}  // namespace

void patch_json(const Experiment&, const Results& results, bool, ordered_json& j) {
  j["next_token"] = ordered_json::array();
  if (const NextTokens* next = results.find<NextTokens>())
    for (const NextToken& word : next->words) j["next_token"].push_back(to_json(word));
}

}  // namespace sinkref
