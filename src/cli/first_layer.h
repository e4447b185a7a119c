#pragma once

#include <vector>

#include "cli/options.h"
#include "measure/cluster_attack/cluster_attack.h"
#include "measure/first_layer/first_layer.h"

namespace sinkref::cli {

/// The inputs of the two analyses: built-in words as tokens of the model's tokenizer; without one,
/// the vocabulary (no BOS, no eos). `inputs` are those of the sink analysis.
FirstLayerInputs first_layer_inputs(const Options& options, const Model& model,
                                    const SinkInputs& inputs, const std::vector<SinkLayer>& sinks);
/// The first sink is attacked: there must be one.
ClusterInputs cluster_inputs(const Options& options, const Model& model, const SinkInputs& inputs,
                             const std::vector<SinkLayer>& sinks);

void print_first_layer(const FirstLayerReport& report, const std::vector<SinkLayer>& sinks);
void print_clusters(const ClusterReport& report, const Tokenizer* tokenizer);

}  // namespace sinkref::cli
