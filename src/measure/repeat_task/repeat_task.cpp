#include "measure/repeat_task/repeat_task.h"

#include <algorithm>

namespace sinkref {

const char* outcome_name(Outcome outcome) {
  switch (outcome) {
    case Outcome::repeats: return "repeats";
    case Outcome::stops: return "stops";
    default: return "departs";
  }
}

std::vector<Greedy> continue_greedily(Forward<float>& forward, std::vector<Sequence<float>>& batch,
                                      Matrix<float> logits, size_t count, Hooks<float>& hooks) {
  const ModelConfig& c = forward.model().config();
  std::vector<Greedy> all(batch.size());
  std::vector<bool> going(batch.size(), count > 0);
  while (true) {
    bool pending = false;
    for (size_t b = 0; b < batch.size(); ++b) {
      if (!going[b]) continue;
      const int token = static_cast<int>(argmax<float>({logits.row(b), logits.cols}));
      all[b].ended = std::find(c.eos_ids.begin(), c.eos_ids.end(), token) != c.eos_ids.end();
      if (!all[b].ended) all[b].tokens.push_back(token);
      going[b] = !all[b].ended && all[b].tokens.size() < count &&
                 batch[b].cache.length < c.max_positions;
      if (going[b]) batch[b].pending = {token};
      pending |= going[b];
    }
    if (!pending) return all;
    logits = forward.run(batch, hooks, false);
  }
}

void judge(Continuation& continuation, int token, bool ended) {
  const std::vector<int>& generated = continuation.generated;
  continuation.kept = 0;
  while (continuation.kept < generated.size() && generated[continuation.kept] == token)
    ++continuation.kept;
  continuation.outcome = continuation.kept < generated.size() ? Outcome::departs
                         : ended                              ? Outcome::stops
                                                              : Outcome::repeats;
}

std::vector<size_t> continuation_points(size_t repeats) {
  std::vector<size_t> points;
  for (size_t decade = 10; decade < repeats; decade *= 10)
    for (size_t n : {decade, 3 * decade})
      if (n < repeats) points.push_back(n);
  points.push_back(repeats);
  return points;
}

}  // namespace sinkref
