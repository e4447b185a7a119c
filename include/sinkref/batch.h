#pragma once

#include <vector>

#include "sinkref/kv_cache.h"

namespace sinkref {

/// One sequence of a batch: its cache, and the tokens still to be run.
template <class T>
struct Sequence {
  KvCache<T> cache;
  std::vector<int> pending;
  /// A hook on Logits sees the positions from here on. Others' logits are not computed.
  size_t logits_from = 0;
  /// Whose positions come before cache.begin(): sequences then share a beginning, which is run and
  /// stored once. Complete, or earlier in the same batch. What hooks keep is kept by the first of the
  /// line, which so has to hold the positions that they keep (of the patch, 0 and 1).
  Sequence* parent = nullptr;
};

/// The sequence by itself: its line's positions in one cache, nothing pending.
template <class T>
Sequence<T> whole(const Sequence<T>& sequence);

/// What one pass through the blocks runs: some pending tokens of every sequence, those of a sequence
/// together. Neither the chunk nor the batch can change a bit.
struct Pass {
  std::vector<Row> rows;
  std::vector<int> tokens;   ///< of each row
  std::vector<size_t> ran;   ///< tokens of each sequence
};

/// Up to `chunk` pending tokens of every sequence whose parent is run by the end of the pass.
template <class T>
Pass next_pass(std::vector<Sequence<T>>& sequences, size_t chunk, bool prompt);

/// The tokens of a pass are no longer pending: the caches have them.
template <class T>
void finish_pass(std::vector<Sequence<T>>& sequences, const Pass& pass);

}  // namespace sinkref
