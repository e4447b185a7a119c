#include <cstdio>

#include "measure/patch/panel.h"

namespace sinkref {

void patch_text(const Experiment&, const Results& results) {
  if (results.sinks.empty()) return;
  std::printf("\nNext token after the run, original and with the patch %s\n"
              "  word        original          patched           total variation\n",
              neurons_text(results.patch).c_str());
  const NextTokens* next = results.find<NextTokens>();
  if (next == nullptr) return;
  for (const NextToken& n : next->words)
    std::printf("  %-10s  %6d (p %.3f)   %6d (p %.3f)   %.3f\n", n.word.c_str(), n.original,
                n.original_probability, n.patched, n.patched_probability, n.total_variation);
}

}  // namespace sinkref
