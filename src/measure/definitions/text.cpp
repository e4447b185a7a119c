#include <cstdio>

#include "measure/definitions/panel.h"

namespace sinkref {

void definitions_text(const Experiment&, const Results& results) {
  const Definitions& found = results.get<Definitions>();
  std::printf("\nSink metric (heads that give position 0 more than 30 %% of their attention over "
              "%zu tokens)\n ", found.metrics[0].length);
  for (const SinkMetric& metric : found.metrics)
    std::printf(" %s %.1f %%", metric.kind.c_str(), metric.percent);
  std::puts("");
}

}  // namespace sinkref
