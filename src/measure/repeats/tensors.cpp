#include <algorithm>

#include "measure/repeats/panel.h"

namespace sinkref {

namespace {

/// "BOS, request" as BOS+request.
std::string key(const RepeatRun& run) {
  std::string condition = run.condition;
  for (size_t at; (at = condition.find(", ")) != std::string::npos;) condition.replace(at, 2, "+");
  std::replace(condition.begin(), condition.end(), ' ', '_');
  return "norms." + condition + "." + run.word + (run.patched ? ".patched" : "");
}

}  // namespace

void repeats_tensors(const Results& results, std::vector<NamedTensor>& all) {
  for (const RepeatRun& run : results.runs) all.push_back(matrix_tensor(key(run), run.norms));
}

}  // namespace sinkref
