#pragma once

#include <memory>
#include <string>
#include <vector>

#include "sinkref/hooks.h"

namespace sinkref {

/// Neurons of one layer's MLP.
struct Neurons {
  size_t layer;
  std::vector<size_t> indices;
};

/// "1:7890,10411" or several such separated by ';'. `option` is named in errors.
std::vector<Neurons> parse_neurons(const std::string& text, const std::string& option,
                                   const ModelConfig& config);
std::string neurons_text(const std::vector<Neurons>& neurons);

/// The paper's patch (section 6), on the output x of mlp.up_proj [batch, tokens, neurons]:
/// prefill keeps v = x[:, 1, neuron] and sets x[:, 1:, neuron] = v; decode sets x[:, 0, neuron] = v.
/// A prompt of one token has no position 1: nothing is pinned and nothing kept for decode.
/// The hooks remember v per sequence: use fresh ones for every run.
template <class T>
void add_patch(const std::vector<Neurons>& neurons, Hooks<T>& hooks);

/// v of one sequence, a list per patched layer; empty before position 1 was run.
template <class T>
using Pinned = std::vector<std::vector<T>>;

/// The same for sequences that go on from cached prefixes of other runs: pinned[i] is that of
/// sequence i, read and filled. It belongs to the cache as its keys and values do.
template <class T>
void add_patch(const std::vector<Neurons>& neurons, Hooks<T>& hooks,
               std::vector<Pinned<T>>& pinned);

/// Zero-ablation: silu(gate)·up of the neurons is 0 at every position.
template <class T>
void add_ablation(const std::vector<Neurons>& neurons, Hooks<T>& hooks);

}  // namespace sinkref
