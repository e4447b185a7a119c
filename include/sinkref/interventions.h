#pragma once

#include <functional>
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

// Interventions as data: what --intervene says, of which --ablate and --patch are shorthands.
//
//   HOOK[@POSITIONS][#PARTS]=ACTION      several separated by ';'
//
//   HOOK       a name or a glob, as "blocks.3.hook_resid_post"
//   POSITIONS  numbers and slices as "0,5,-1" or "1:" or "-3:"; negative ones count from the prompt's end, and a
//              slice without an end holds what is generated too. Without them: every position
//   PARTS      heads (of q, k, v, z, scores, pattern) or elements of the vector (neurons) as "3,77"; or
//              "along:FILE": the component in a direction. Without them: everything
//   ACTION     zero
//              mean:FILE         the mean over all positions of FILE's tensor of the hook's name, or a vector
//              from:FILE         FILE's tensor at the same position: patching from another run
//              resample:FILE     FILE's tensor at a position drawn by the position's number
//              add:FILE          or add:NUMBER*FILE: steering by a vector
//              pin:POSITION      what the prompt has there stays at every later position
//
// A FILE is a trace, or for a vector a JSON list of numbers. "--ablate 1:3" is "blocks.1.mlp.hook_post#3=zero",
// "--patch 1:3" is "blocks.1.mlp.hook_pre_linear#3=pin:1".

/// What an intervention takes from elsewhere: a tensor of a trace [b, p, …], or a vector [n].
struct GivenValues {
  std::vector<size_t> shape;
  std::vector<double> values;
  std::vector<size_t> lengths;  ///< of the sequences, where they are padded
};
/// Gives what a FILE of the grammar stands for at a hook. Throws InputError.
using GivenReader = std::function<GivenValues(const std::string& file, const std::string& hook)>;
GivenValues read_given(const std::string& file, const std::string& hook);

/// Positions [begin, end) of a sequence; negative ones count from its prompt's end.
struct PositionSlice {
  long begin = 0;
  std::optional<long> end;  ///< none: no end
  bool one = false;         ///< `begin` alone
};

struct HookIntervention {
  enum class Action { zero, mean, from, resample, add, pin };
  Hook hook;
  Action action = Action::zero;
  std::vector<PositionSlice> positions;  ///< none: all
  std::vector<size_t> parts;             ///< heads or elements; none: all
  size_t part_width = 1;                 ///< numbers of a head, or 1
  std::vector<double> direction;         ///< only the component along it, if there is one
  GivenValues given;                     ///< mean: {width} numbers
  double factor = 1;                     ///< of add
  size_t pinned = 0;                     ///< the position of pin
  std::string text;                      ///< in the grammar, with the SHA-256 of its numbers for a FILE
};

/// One for each hook that is meant. `option` is named in errors.
std::vector<HookIntervention> parse_interventions(const std::string& text, const std::string& option,
                                              const ModelConfig& config, const GivenReader& read = read_given);
/// For metadata: nothing that differs between machines. "none" without any.
std::string interventions_text(const std::vector<HookIntervention>& interventions);

/// Whether it may change a position of a sequence whose prompt has `length` tokens.
bool may_change(const HookIntervention& one, size_t position, size_t length);

/// Adds them in their order. `lengths`: of the sequences' prompts, to which `generated` tokens may be appended.
/// Throws InputError where `from` has fewer positions than are to be replaced, and for one that no position has.
template <class T>
void add_interventions(const std::vector<HookIntervention>& interventions, const std::vector<size_t>& lengths,
                       Hooks<T>& hooks, size_t generated = 0);

}  // namespace sinkref
