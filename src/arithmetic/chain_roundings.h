#pragma once

#include <algorithm>

#include "sinkref/number.h"

namespace sinkref {

/// The most roundings that a term of a chain (number.h) goes through: of its block, of its span's blocks' sum, of the
/// spans' sum.
inline size_t chain_roundings(size_t terms) {
  const size_t blocks = (terms + chain_block - 1) / chain_block;
  return std::min(terms, chain_block) + std::min(blocks, chain_span / chain_block) + (terms + chain_span - 1) / chain_span;
}

}  // namespace sinkref
