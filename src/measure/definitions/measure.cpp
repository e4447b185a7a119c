#include "measure/definitions/panel.h"
#include "model/work.h"

namespace sinkref {

double definitions_work(const Experiment& e, const Results&) {
  const ModelConfig& c = e.model.config();
  double work = prefill_work(c, e.stimuli.sink.text.size());
  for (const Stimuli::Samples& samples : e.stimuli.samples)
    work += prefill_work(c, sink_length, samples.tokens.size());
  return work;
}

void measure_definitions(const Experiment& e, Results& results) {
  e.progress->step("massive activations and the sink metric", definitions_work(e, results));
  Definitions& found = results.put(Definitions{});
  found.massive = massive_activations(e.model, e.run, e.stimuli.sink.text);
  for (const Stimuli::Samples& samples : e.stimuli.samples)
    found.metrics.push_back(sink_metric(e.model, e.run, samples.kind, samples.tokens));
}

void definitions_tensors(const Results& results, std::vector<NamedTensor>& all) {
  for (const SinkMetric& metric : results.get<Definitions>().metrics)
    all.push_back(matrix_tensor("sink_metric." + metric.kind, metric.attention));
}

}  // namespace sinkref
