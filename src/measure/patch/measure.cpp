#include "measure/patch/panel.h"

namespace sinkref {

void measure_patch(const Experiment& e, Results& results) {
  NextTokens next;
  for (const RepeatRun& run : results.runs)
    if (run.patched)
      next.words.push_back(compare_next(*results.run_of(run.word, e.stimuli.usual().name, false), run));
  if (!next.words.empty()) results.put(std::move(next));
}

}  // namespace sinkref
