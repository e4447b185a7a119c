#pragma once

#include <optional>
#include <string>
#include <vector>

#include "sinkref/hooks.h"

namespace sinkref {

// What a run is made to do differently. Each is a function that adds hooks.

/// Neurons of one layer's MLP.
struct Neurons {
  size_t layer;
  std::vector<size_t> indices;
};

/// "1:7890,10411" or several such separated by ';'. `option` is named in errors.
std::vector<Neurons> parse_neurons(const std::string& text, const std::string& option,
                                   const ModelConfig& config);
std::string neurons_text(const std::vector<Neurons>& neurons);

/// What of a neuron silu(gate)·up is pinned. The paper pins up; the others are beside it because a
/// neuron may be switched by its gate. `both` and `post` make the same model: silu_mul of two pinned
/// values is the pinned value.
enum class PatchSite { up, gate, both, post };

inline constexpr PatchSite patch_sites[] = {PatchSite::up, PatchSite::gate, PatchSite::both,
                                            PatchSite::post};
const char* patch_site_name(PatchSite site);
/// Where a patch pins its neurons.
std::vector<HookPoint> pinned_points(PatchSite site);

/// The paper's patch (section 6), on the output x of mlp.up_proj [batch, tokens, neurons]:
/// prefill keeps v = x[:, 1, neuron] and sets x[:, 1:, neuron] = v; decode sets x[:, 0, neuron] = v.
/// `site` puts it on the gate, on both or on silu(gate)·up instead. A prompt of one token has no
/// position 1: nothing is pinned, in decode neither. v is kept in the sequence's cache (KeptValues);
/// std::logic_error if the sequence has passed position 1 without this patch.
template <class T>
void add_patch(const std::vector<Neurons>& neurons, Hooks<T>& hooks, PatchSite site = PatchSite::up);

/// Zero-ablation: silu(gate)·up of the neurons is 0 at every position.
template <class T>
void add_ablation(const std::vector<Neurons>& neurons, Hooks<T>& hooks);

/// Blinding: every query of a layer's heads (or of one head) attends to itself alone, as a first token
/// does.
template <class T>
void add_blinding(size_t layer, std::optional<size_t> head, Hooks<T>& hooks);

/// A vector [d] added to what a layer's attention adds, at every position: the mark of having seen
/// another token.
template <class T>
void add_mark(size_t layer, const std::vector<double>& mark, Hooks<T>& hooks);

}  // namespace sinkref
