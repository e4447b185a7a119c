#pragma once

#include <string>
#include <vector>

#include "base/progress.h"
#include "sinkref/model.h"

namespace sinkref {

/// One way to run the same tokens, compared with the plain one (all tokens at once, all threads, the
/// best kernel) in every tensor of the trace.
struct SelfCheckAxis {
  std::string axis, setting;  ///< "threads", "3"
  size_t compared = 0;        ///< rows of tensors
  size_t differing = 0;       ///< of them, in any bit
  std::string first;          ///< "blocks.3.attn.hook_q, token 5", or empty
};

/// One weight as one number of one tensor.
struct WeightIndex {
  std::string tensor;  ///< Hugging Face's name
  size_t index;        ///< in row-major order
};

struct SelfCheck {
  std::vector<SelfCheckAxis> axes;
  /// The negative control: a run with one weight moved by one ulp, which must differ.
  WeightIndex perturbed;
  SelfCheckAxis control;
  bool agrees() const;
};

/// "model.layers.3.mlp.up_proj.weight[17]", or short "3.mlp.up_proj[17]". InputError for a tensor or
/// an index that the model does not have.
WeightIndex parse_weight(const std::string& text, const Model& model);

/// Runs `tokens` on every axis that this machine has. Without `perturb` the control moves the largest
/// weight of the first block's value projection. `progress` is told each axis before it runs.
SelfCheck check_self(const Model& model, const std::vector<int>& tokens,
                     const WeightIndex* perturb,
                     Progress& progress);

}  // namespace sinkref
