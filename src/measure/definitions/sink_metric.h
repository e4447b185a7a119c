#pragma once

#include <string>
#include <vector>

#include "measure/observe.h"

// The sink metric (Gu et al. 2024, arXiv 2410.10781, section 3):
//     α_1 = 1/T · Σ_{i=1..T} A_{i,1},   Sink_1^ε = share of heads (over samples and layers) with
//     α_1 > ε;  ε = 0.3, T = 64.
// On repeated tokens it falls although the norms stay: the mass spreads over the run.

namespace sinkref {

inline constexpr double sink_epsilon = 0.3;
inline constexpr size_t sink_length = 64;

struct SinkMetric {
  std::string kind;        ///< of the samples: "text", "repeated", "random"
  size_t samples = 0;
  size_t length = 0;       ///< T: 64, or fewer where the model's context or the text is shorter
  double percent = 0;      ///< Sink_1^ε · 100
  std::vector<double> by_layer;                  ///< the same per layer, in percent
  std::vector<std::vector<double>> attention;    ///< α_1 [layer][head], mean over the samples
};

/// Each sample is cut to its first `length` tokens, where `length` is at most 64 and at most the
/// shortest sample.
SinkMetric sink_metric(const Model& model, const RunOptions& options, const std::string& kind,
                       std::vector<std::vector<int>> samples);

}  // namespace sinkref
