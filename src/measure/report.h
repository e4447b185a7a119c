#pragma once

#include <optional>
#include <string>
#include <vector>

#include "measure/cluster_attack/cluster_attack.h"
#include "measure/first_layer/first_layer.h"
#include "measure/definitions/massive.h"
#include "measure/patch_effect/patch_effect.h"
#include "measure/repeats/repeats.h"
#include "sinkref/sink.h"
#include "measure/definitions/sink_metric.h"

// All panels of the paper for one model, each from its own header; see docs of each. This file says
// what is run, so that no sequence is run twice.

namespace sinkref {

struct ReportInputs {
  SinkInputs sink;  ///< `words` stand in the first of the conditions
  /// What stands before the runs: "BOS", "BOS, request", "request", "nothing".
  struct Condition {
    std::string name;
    std::vector<int> prefix;
    bool request = false;  ///< asks for the repeats: the repeat task is judged here
    size_t repeats = 0;
  };
  std::vector<Condition> conditions;
  /// For the sink metric: "text" first, then "repeated" and "random".
  struct Samples {
    std::string kind;
    std::vector<std::vector<int>> tokens;
  };
  std::vector<Samples> samples;
  /// What is patched; by default the neurons of all sinks that are found.
  std::optional<std::vector<Neurons>> patch;
};

/// The other softmax as a what-if: the same measurements with softmax_1 (or, if the report itself is
/// made with softmax_1, with the standard one).
struct SoftmaxWhatIf {
  Softmax softmax = Softmax::one;
  LayerNorms norms;
  std::vector<SinkLayer> sinks;
  SinkMetric metric;  ///< on text
  RepeatRun run;      ///< first word, first condition
};

/// Panel 3. The text and one run, at the layers of attention_layers().
struct AttentionPanel {
  std::vector<LayerAttention> text, run;
  std::string word, condition;
  size_t run_begins = 0;  ///< position of the first repeat
};

struct Report {
  LayerNorms norms;
  std::vector<SinkLayer> sinks;  ///< strongest first
  std::vector<Neurons> patch;    ///< ReportInputs::patch, or the neurons of all sinks
  std::vector<MassiveLayer> massive;
  std::vector<SinkMetric> metrics;  ///< text, repeated, random
  std::vector<RepeatRun> runs;      ///< every condition and word; the first condition patched too
  std::vector<NextToken> next;      ///< one per word, first condition
  AttentionPanel attention;
  std::optional<FirstLayerReport> first_layer;
  std::optional<ClusterReport> clusters;  ///< where there is a sink to attack
  std::optional<PatchEffect> patch_effect;  ///< where there is something to patch
  std::optional<SoftmaxWhatIf> what_if;

  /// The run of a word in a condition, or nullptr.
  const RepeatRun* find(const std::string& word, const std::string& condition, bool patched) const;
};

/// Panels 2 and 4 in the first condition: `sinkref sink`.
Report analyse_sinks(const Model& model, const RunOptions& options, const ReportInputs& inputs,
                     const Step& step);

/// Everything: `sinkref report`.
Report analyse(const Model& model, const RunOptions& options, const ReportInputs& inputs,
               const Step& step);

}  // namespace sinkref
