#include "cli/goldens.h"

#include <cstdio>

namespace sinkref::cli {

using nlohmann::ordered_json;

ordered_json golden_json(const GoldenResult& golden) {
  ordered_json tensors = ordered_json::array();
  for (const GoldenTensor& t : golden.tensors)
    tensors.push_back({{"tensor", t.name},
                       {"rms", t.ours.rms},
                       {"rms_hf", t.floor.rms},
                       {"row_rms", t.ours.row_rms},
                       {"row_rms_hf", t.floor.row_rms},
                       {"within", t.within}});
  return {{"file", golden.file},
          {"agrees", golden.agrees},
          {"worst_ratio", golden.worst_ratio},
          {"argmax_compared", golden.argmax_compared},
          {"argmax_equal", golden.argmax_equal},
          {"generated", golden.generated},
          {"generated_equal", golden.generated_equal},
          {"inv_freq_equal", golden.inv_freq_equal},
          {"tensors", tensors}};
}

void print_goldens(const std::vector<GoldenResult>& goldens) {
  if (goldens.empty()) return;
  std::puts("\nAgreement with Hugging Face (error against true float64, in units of HF fp32's own)\n"
            "  golden                       tensors  worst ratio  argmax   greedy tokens  verdict");
  for (const GoldenResult& g : goldens)
    std::printf("  %-27s  %7zu  %11.2f  %3zu/%-3zu  %6zu/%-6zu  %s\n", g.file.c_str(),
                g.tensors.size(), g.worst_ratio, g.argmax_equal, g.argmax_compared,
                g.generated_equal, g.generated, g.agrees ? "agrees" : "DIFFERS");
}

}  // namespace sinkref::cli
