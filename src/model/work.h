#pragma once

#include "sinkref/config.h"

// How much work a run is, for the percent and the time left: in multiply-adds of the products with
// weights, which are nearly all of it. Known before anything runs.

namespace sinkref {

/// Tokens' worth of time that a pass through the weights costs by itself, however few tokens it has.
inline constexpr double pass_overhead = 20;

/// `tokens` of each of `sequences` together, behind `before` others, through blocks [0, blocks), with
/// logits for `logits` rows in all.
double prefill_work(const ModelConfig& config, size_t tokens, size_t sequences = 1, size_t before = 0,
                    size_t blocks = SIZE_MAX, size_t logits = 0);

/// `steps` of one token of each of `sequences`, behind about `before` others.
double decode_work(const ModelConfig& config, size_t steps, size_t sequences, size_t before);

}  // namespace sinkref
