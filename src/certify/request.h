#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "sinkref/interventions.h"
#include "sinkref/number.h"

namespace sinkref {

/// Which cos and sin RoPE turns by. stored: those of the fp32 angle, each correctly rounded to fp32, as data
/// (definition.h); real: those of the real angle; given: another fp32 table as data, such as PyTorch's.
enum class RopeTable { stored, real, given };

/// One run that real numbers define.
struct BallRun {
  std::vector<int> tokens;
  Softmax softmax = Softmax::standard;
  RopeTable rope = RopeTable::stored;
  std::vector<float> cosines, sines;  ///< of a given table, (position, h/2)
  std::vector<Neurons> patch, ablation;
  PatchSite patch_site = PatchSite::up;

  bool changed() const { return !patch.empty() || !ablation.empty(); }
};

}  // namespace sinkref
