#include "measure/tensors.h"

#include "model/safetensors_header.h"

namespace sinkref {

NamedTensor vector_tensor(const std::string& name, const std::vector<double>& values) {
  return {name, {values.size()}, values};
}

NamedTensor matrix_tensor(const std::string& name, const std::vector<std::vector<double>>& rows) {
  NamedTensor tensor{name, {rows.size(), rows.empty() ? 0 : rows[0].size()}, {}};
  for (const std::vector<double>& row : rows)
    tensor.values.insert(tensor.values.end(), row.begin(), row.end());
  return tensor;
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
