#pragma once

#include <nlohmann/json.hpp>
#include <vector>

#include "measure/patch_effect/patch_effect.h"
#include "measure/paper/published.h"
#include "measure/report.h"

// report.json: one key per panel, one function per result.

namespace sinkref {

/// Rounded to 9 significant digits, which fp32 holds; infinities and NaN become null.
nlohmann::ordered_json number(double value);
nlohmann::ordered_json numbers(const std::vector<double>& values);

nlohmann::ordered_json to_json(const SinkLayer& sink);
nlohmann::ordered_json to_json(const LayerNorms& norms);
nlohmann::ordered_json to_json(const MassiveLayer& layer);
nlohmann::ordered_json to_json(const SinkMetric& metric);
nlohmann::ordered_json to_json(const NextToken& next);
nlohmann::ordered_json to_json(const Continuation& continuation);
nlohmann::ordered_json to_json(const LayerAttention& layer);
nlohmann::ordered_json to_json(const AttentionPanel& panel);
nlohmann::ordered_json to_json(const PaperComparison& paper);
nlohmann::ordered_json to_json(const SoftmaxWhatIf& other, const std::vector<SinkLayer>& sinks,
                               bool with_curves);

/// Panel 6; tokens as ids.
nlohmann::ordered_json to_json(const PatchEffect& effect, bool with_curves);

/// A run with its counts for every sink, and (with_curves) the norms at those layers.
nlohmann::ordered_json run_json(const RepeatRun& run, const std::vector<SinkLayer>& sinks,
                                bool with_curves);

/// The panels of a report; `sink --json` is the same without curves.
nlohmann::ordered_json panels_json(const Report& report, const ReportInputs& inputs,
                                   bool with_curves);

}  // namespace sinkref
