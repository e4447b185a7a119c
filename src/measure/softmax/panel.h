#pragma once

#include "measure/definitions/sink_metric.h"
#include "measure/panel.h"

// Would the sink vanish if heads could attend to nothing?

namespace sinkref {

/// The other softmax as a what-if: the same measurements with softmax_1 (or, if the experiment is
/// made with softmax_1, with the standard one).
struct SoftmaxWhatIf {
  Softmax softmax = Softmax::one;
  LayerNorms norms;
  std::vector<SinkLayer> sinks;
  SinkMetric metric;  ///< on text
  RepeatRun run;      ///< first word, usual condition
};

void measure_softmax(const Experiment& experiment, Results& results);
double softmax_work(const Experiment& experiment, const Results& results);
void softmax_json(const Experiment&, const Results& results, bool with_curves,
                  nlohmann::ordered_json& j);
void softmax_page(const PageContext& context, Page& page);
void softmax_tensors(const Results& results, std::vector<NamedTensor>& all);

}  // namespace sinkref
