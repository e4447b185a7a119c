#include "measure/definitions/panel.h"
#include "measure/json.h"
#include "measure/repeats/panel.h"
#include "measure/sinks/panel.h"
#include "measure/softmax/panel.h"

namespace sinkref {

using nlohmann::ordered_json;

void softmax_json(const Experiment&, const Results& results, bool, ordered_json& j) {
  const SoftmaxWhatIf& other = results.get<SoftmaxWhatIf>();
  j["softmax_what_if"] = {
      {"softmax", other.softmax == Softmax::one ? "one" : "standard"},
      {"layers", to_json(other.norms)},
      {"sink_layers", each(other.sinks, [](const SinkLayer& sink) { return to_json(sink); })},
      {"sink_metric", to_json(other.metric)},
      {"run", run_json(other.run, results.sinks, true)}};
}

void softmax_tensors(const Results& results, std::vector<NamedTensor>& all) {
  all.push_back(matrix_tensor("softmax_what_if.norms", results.get<SoftmaxWhatIf>().run.norms));
}

}  // namespace sinkref
