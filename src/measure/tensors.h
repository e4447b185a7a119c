#pragma once

#include <map>
#include <string>
#include <vector>

#include "base/output_file.h"
#include "measure/report.h"

// report.safetensors: the curves and maps of a report in full, as float64.

namespace sinkref {

struct NamedTensor {
  std::string name;
  std::vector<size_t> shape;
  std::vector<double> values;
};

/// norms.CONDITION.WORD[.patched] [L,n] · layers.* [L] · attention.text|run.LAYER.on_first|on_body|norm [p] ·
/// sink_metric.KIND [L,H] · softmax_what_if.norms [L,n]
std::vector<NamedTensor> tensors_of(const Report& report);

/// The whole safetensors file, not yet committed.
void write_tensors(OutputFile& file, const std::vector<NamedTensor>& tensors,
                   const std::map<std::string, std::string>& metadata);

}  // namespace sinkref
