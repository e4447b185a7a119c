#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "sinkref/verify.h"
#include "verify/candidate.h"

namespace sinkref {

/// The part of the model that a hypothesis is tried on.
struct Place {
  size_t first_block = 0, end_block = 0;
  std::optional<size_t> only;  ///< the fault is in this block alone; else wherever it applies

  bool holds(size_t layer) const { return !only || *only == layer; }
};

/// A usual fault: what would be different of the configuration, the weights or the run. `before`
/// changes what a step gives; `after` changes it once it has been compared, as input of what follows.
struct Hypothesis {
  std::string fault, detail;
  HookPoint first = HookPoint::Embed;  ///< the earliest hook it can show at
  std::function<void(ModelConfig&)> config = {};
  std::function<void(LayerWeights&)> weights = {};
  using AddHooks = std::function<void(Hooks<double>&, const Place&)>;
  AddHooks before = {}, after = {};
  std::optional<Softmax> softmax = {};
  std::vector<size_t> head_of = {};  ///< attention slot -> query head, if they differ
  double slack = 1;             ///< attention scores are this much larger, and so is their rounding
  /// It rounds to fewer bits: where a value lies between two of them, fp32 noise decides, so a
  /// quarter of the rows may be off.
  bool rounds = false;
};

/// All that can show at hook `first`, and what their numbers there suggest.
std::vector<Hypothesis> usual_faults(const Model& model, const Candidate& candidate,
                                     const VerifyOptions& options, Hook first);

// Its parts, by what goes wrong.
void add_norm_faults(const Model& model, std::vector<Hypothesis>& all);
void add_weight_faults(const Model& model, std::vector<Hypothesis>& all);
void add_rope_faults(const Model& model, const Candidate& candidate, Hook first,
                     std::vector<Hypothesis>& all);
void add_attention_faults(const Model& model, const Candidate& candidate,
                          const VerifyOptions& options, Hook first, std::vector<Hypothesis>& all);
void add_mlp_faults(std::vector<Hypothesis>& all);
void add_patch_faults(const Model& model, const Candidate& candidate, const VerifyOptions& options,
                      Hook first, std::vector<Hypothesis>& all);
void add_head_faults(const Model& model, std::vector<Hypothesis>& all);

/// Adds `function` at `point` of every block of the place.
void on_blocks(Hooks<double>& hooks, const Place& place, HookPoint point,
               const std::function<void(const Activation<double>&)>& function);

/// To the nearest fp16 or bf16 number, by way of fp32.
double rounded(double value, NumberType type);

}  // namespace sinkref
