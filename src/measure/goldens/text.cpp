#include <cstdio>

#include "measure/goldens/panel.h"

namespace sinkref {

void print_goldens(const std::vector<GoldenResult>& goldens) {
  if (goldens.empty()) return;
  std::puts("\nAgreement with Hugging Face (error against true float64, in units of HF fp32's own)\n"
            "  golden                       tensors  worst ratio  argmax   greedy tokens  verdict");
  for (const GoldenResult& g : goldens)
    std::printf("  %-27s  %7zu  %11.2f  %3zu/%-3zu  %6zu/%-6zu  %s\n", g.file.c_str(),
                g.tensors.size(), g.worst_ratio, g.argmax_equal, g.argmax_compared,
                g.generated_equal, g.generated, g.agrees ? "agrees" : "DIFFERS");
}

void goldens_text(const Experiment&, const Results& results) {
  if (const Goldens* goldens = results.find<Goldens>()) print_goldens(goldens->files);
}

}  // namespace sinkref
