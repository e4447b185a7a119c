#pragma once

#include <map>
#include <string>
#include <vector>

#include "base/output_file.h"

// report.safetensors: the curves and maps of the panels in full, as float64.
//     norms.CONDITION.WORD[.patched] [L,n] · layers.* [L] ·
//     attention.text|run.LAYER.on_first|on_body|norm [p] · sink_metric.KIND [L,H] ·
//     softmax_what_if.norms [L,n]

namespace sinkref {

struct NamedTensor {
  std::string name;
  std::vector<size_t> shape;
  std::vector<double> values;
};

NamedTensor vector_tensor(const std::string& name, const std::vector<double>& values);
/// Rows of one length.
NamedTensor matrix_tensor(const std::string& name, const std::vector<std::vector<double>>& rows);

/// The whole safetensors file, not yet committed.
void write_tensors(OutputFile& file, const std::vector<NamedTensor>& tensors,
                   const std::map<std::string, std::string>& metadata);

}  // namespace sinkref
