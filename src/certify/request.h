#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "sinkref/interventions.h"
#include "sinkref/number.h"

namespace sinkref {

/// Which cos and sin RoPE turns by: the fp32 table that Hugging Face makes, as data, or those of the real angle.
enum class RopeTable { stored, real };

/// One run that real numbers define.
struct BallRun {
  std::vector<int> tokens;
  Softmax softmax = Softmax::standard;
  RopeTable rope = RopeTable::stored;
  std::vector<Neurons> patch, ablation;
  PatchSite patch_site = PatchSite::up;

  bool changed() const { return !patch.empty() || !ablation.empty(); }
};

}  // namespace sinkref
