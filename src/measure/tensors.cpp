#include "measure/tensors.h"

#include <algorithm>
#include <string_view>

#include "model/safetensors_header.h"

namespace sinkref {

namespace {

NamedTensor matrix(const std::string& name, const std::vector<std::vector<double>>& rows) {
  NamedTensor tensor{name, {rows.size(), rows.empty() ? 0 : rows[0].size()}, {}};
  for (const std::vector<double>& row : rows)
    tensor.values.insert(tensor.values.end(), row.begin(), row.end());
  return tensor;
}

NamedTensor vector_of(const std::string& name, const std::vector<double>& values) {
  return {name, {values.size()}, values};
}

/// "BOS, request" as BOS+request.
std::string key(const RepeatRun& run) {
  std::string condition = run.condition;
  for (size_t at; (at = condition.find(", ")) != std::string::npos;) condition.replace(at, 2, "+");
  std::replace(condition.begin(), condition.end(), ' ', '_');
  return "norms." + condition + "." + run.word + (run.patched ? ".patched" : "");
}

void add_attention(const std::string& name, const std::vector<LayerAttention>& layers,
                   std::vector<NamedTensor>& all) {
  for (const LayerAttention& layer : layers) {
    const std::string prefix = "attention." + name + "." + std::to_string(layer.layer);
    all.push_back(vector_of(prefix + ".on_first", layer.on_first));
    all.push_back(vector_of(prefix + ".on_body", layer.on_body));
    all.push_back(vector_of(prefix + ".norm", layer.norm));
  }
}

}  // namespace

std::vector<NamedTensor> tensors_of(const Report& report) {
  std::vector<NamedTensor> all = {vector_of("layers.mlp_first", report.norms.mlp_first),
                                  vector_of("layers.mlp_typical", report.norms.mlp_typical),
                                  vector_of("layers.resid_first", report.norms.resid_first),
                                  vector_of("layers.resid_typical", report.norms.resid_typical)};
  for (const SinkMetric& metric : report.metrics)
    all.push_back(matrix("sink_metric." + metric.kind, metric.attention));
  add_attention("text", report.attention.text, all);
  add_attention("run", report.attention.run, all);
  for (const RepeatRun& run : report.runs) all.push_back(matrix(key(run), run.norms));
  if (report.what_if) all.push_back(matrix("softmax_what_if.norms", report.what_if->run.norms));
  return all;
}

void write_tensors(OutputFile& file, const std::vector<NamedTensor>& tensors,
                   const std::map<std::string, std::string>& metadata) {
  std::vector<TensorPlan> plan;
  for (const NamedTensor& tensor : tensors)
    plan.push_back({tensor.name, "F64", tensor.shape, tensor.values.size() * sizeof(double)});
  file.append(safetensors_header(plan, metadata));
  for (const NamedTensor& tensor : tensors)
    file.append({reinterpret_cast<const char*>(tensor.values.data()),
                 tensor.values.size() * sizeof(double)});
}

}  // namespace sinkref
