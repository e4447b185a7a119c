#include <cstdio>

#include "measure/repeats/panel.h"

namespace sinkref {

namespace {

std::string count_text(size_t n) { return n == 0 ? "-" : std::to_string(n); }

}  // namespace

void repeats_text(const Experiment& experiment, const Results& results) {
  if (results.sinks.empty()) return;
  const std::string& condition = experiment.stimuli.usual().name;
  std::printf("\nRepeats of one word after %s (needed: first past the geometric mean of typical and "
              "first token)\n"
              "  word        layer  needed      norm  needed, patched  norm, patched\n",
              condition.c_str());
  for (const RepeatRun& run : results.runs) {
    if (run.condition != condition || run.patched) continue;
    const RepeatRun* patched = results.run_of(run.word, condition, true);
    if (patched == nullptr) continue;
    const std::vector<RepeatsNeeded> before = repeats_needed(run, results.sinks),
                                     after = repeats_needed(*patched, results.sinks);
    for (size_t i = 0; i < before.size(); ++i)
      std::printf("  %-10s  %5zu  %6s  %8.1f  %15s  %13.1f\n", run.word.c_str(), before[i].layer,
                  count_text(before[i].count).c_str(), before[i].norm_last,
                  count_text(after[i].count).c_str(), after[i].norm_last);
  }
}

}  // namespace sinkref
