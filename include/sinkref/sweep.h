#pragma once

#include <functional>
#include <vector>

#include "sinkref/forward.h"

namespace sinkref {

/// Activation patching over layers × positions (× heads): in each cell one activation of a run is that of another
/// run of as many tokens, and one row of one hook is looked at. A cell computes only what its patch can have
/// changed (later positions, from the patched block on) and has the bits of a whole run.
struct PatchSweep {
  HookPoint point = HookPoint::ResidPre;  ///< what is patched: of the blocks, neither scores nor pattern
  std::vector<size_t> layers, positions;
  bool by_head = false;                  ///< of q, k, v, z (and after RoPE): each head by itself
  Hook observed{HookPoint::Logits, 0};   ///< what is looked at: neither scores nor pattern
  size_t observed_position = 0;
  std::function<void()> each_block;      ///< called after each block of every run, or none; may throw
};

/// Rows of the observed hook, one a cell; cells [first, first + rows.rows) of layers × positions × heads.
template <class T>
using SweepResult = std::function<void(size_t first, const Matrix<T>& rows)>;

/// Patches `tokens` with activations of a run of `source`. Throws InputError for lengths that differ and for what
/// the model does not have. options.progress is told cells.
template <class T>
void patch_sweep(const Model& model, const RunOptions& options, const std::vector<int>& tokens,
                 const std::vector<int>& source, const PatchSweep& sweep, const SweepResult<T>& result);

}  // namespace sinkref
