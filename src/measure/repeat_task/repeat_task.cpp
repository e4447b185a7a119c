#include "measure/repeat_task/repeat_task.h"

namespace sinkref {

const char* outcome_name(Outcome outcome) {
  switch (outcome) {
    case Outcome::repeats: return "repeats";
    case Outcome::stops: return "stops";
    default: return "departs";
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
