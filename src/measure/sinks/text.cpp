#include <cstdio>

#include "measure/definitions/panel.h"
#include "measure/sinks/panel.h"
#include "page/words.h"

namespace sinkref {

void sinks_text(const Experiment&, const Results& results) {
  if (results.sinks.empty()) {
    std::puts("No sink: no layer's MLP gives the first token a norm far above ordinary text's by a "
              "few neurons.");
    return;
  }
  std::puts("Sink layers (strongest first; norms of the residual stream after the layer)\n"
            "  layer  first token   typical   ablated  paper's rule  massive  neurons");
  for (const SinkLayer& sink : results.sinks) {
    const MassiveLayer& massive = results.get<Definitions>().massive[sink.layer];
    std::printf("  %5zu  %11.1f  %8.1f  %8.1f  %-12s  %-7s  %s\n", sink.layer, sink.norm_first,
                sink.norm_typical, sink.norm_ablated, sink.by_paper ? "yes" : "no",
                massive.by_all ? "yes" : "no", list_text(sink.neurons).c_str());
  }
}

}  // namespace sinkref
