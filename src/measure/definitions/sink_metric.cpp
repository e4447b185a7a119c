#include "measure/definitions/sink_metric.h"

#include <algorithm>

namespace sinkref {

SinkMetric sink_metric(const Model& model, const RunOptions& options, const std::string& kind,
                       std::vector<std::vector<int>> samples) {
  const size_t layers = model.config().layers, heads = model.config().heads;
  SinkMetric metric;
  metric.kind = kind;
  metric.samples = samples.size();
  metric.length = sink_length;
  for (const std::vector<int>& sample : samples)
    metric.length = std::min(metric.length, sample.size());
  for (std::vector<int>& sample : samples) sample.resize(metric.length);

  // [layer][sample][head]: Σ over the queries of the attention to position 0.
  std::vector<std::vector<std::vector<double>>> sums(
      layers, std::vector(samples.size(), std::vector<double>(heads)));
  Hooks<float> hooks;
  for (size_t layer = 0; layer < layers; ++layer)
    hooks.add({HookPoint::Pattern, layer}, [&of_layer = sums[layer]](const Activation<float>& a) {
      for (size_t r = 0; r < a.rows.size(); ++r)
        of_layer[a.rows[r].sequence][a.head] += static_cast<double>(a.row(r)[0]);
    });
  run(model, options, samples, hooks);

  const double count = static_cast<double>(samples.size() * heads);
  for (const auto& of_layer : sums) {
    std::vector<double> attention(heads);
    size_t above = 0;
    for (const std::vector<double>& of_sample : of_layer)
      for (size_t head = 0; head < heads; ++head) {
        const double alpha = of_sample[head] / static_cast<double>(metric.length);
        attention[head] += alpha / static_cast<double>(samples.size());
        above += alpha > sink_epsilon;
      }
    metric.attention.push_back(std::move(attention));
    metric.by_layer.push_back(100 * static_cast<double>(above) / count);
  }
  metric.percent = mean(metric.by_layer);
  return metric;
}

}  // namespace sinkref
