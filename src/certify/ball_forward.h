#pragma once

#include <functional>
#include <vector>

#include "certify/ball.h"
#include "certify/request.h"
#include "sinkref/hooks.h"
#include "sinkref/model.h"

namespace sinkref {

/// What a run of balls shows: the rows of one hook from position `first` on, of scores and pattern one head's.
using SeeBalls = std::function<void(Hook hook, size_t head, size_t first, const Matrix<Ball>& values)>;

/// How far a run has come.
struct BallProgress {
  /// After each block: how many bits its residual stream has left before its radius is as large as it.
  /// Throws TooFewBits to give up.
  std::function<void(size_t layer, long bits_left)> block;
  std::function<void(size_t rows, size_t all)> logits;
};

/// definition.h with balls whose middles have `bits` bits at the start, through blocks [0, depth) and, if depth is
/// all, the final norm; with `logits` the head too. Throws TooFewBits where nothing can be learned any more.
void run_balls(const Model& model, const BallRun& run, long bits, size_t depth, bool logits, const SeeBalls& see,
               const BallProgress& progress);

}  // namespace sinkref
