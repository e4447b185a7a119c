#include <nlohmann/json.hpp>

#include "measure/goldens/panel.h"

namespace sinkref {

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

void goldens_json(const Experiment&, const Results& results, bool, ordered_json& j) {
  j["goldens"] = ordered_json::array();
  if (const Goldens* goldens = results.find<Goldens>())
    for (const GoldenResult& golden : goldens->files) j["goldens"].push_back(golden_json(golden));
}

}  // namespace sinkref
