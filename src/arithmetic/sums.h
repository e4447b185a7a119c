#pragma once

#include <cstddef>

#include "sinkref/tensor.h"

namespace sinkref {

/// The two outer levels of many chains: blocks are added to `span`, spans to `total`. Nothing is
/// added to a zero: what comes first is put there, and +0 added at the end, which alone tells the two
/// apart (in the sign of a zero).
template <class T>
struct Sums {
  Lines<T> span, total;
  bool fresh = true;  ///< span holds nothing yet

  void reset(size_t n) {
    span.resize(n);
    total.resize(n);
    fresh = true;
    spans_ = 0;
  }
  /// Another block was added to every span.
  void end_block() { fresh = false; }
  /// Another span follows.
  void end_span() {
    if (spans_++ == 0)
      span.swap(total);
    else
      for (size_t i = 0; i < total.size(); ++i) total[i] = total[i] + span[i];
    fresh = true;
  }
  /// The sums begin … begin + count - 1.
  void result(size_t begin, size_t count, T* out) const {
    const T* last = span.data() + begin;
    const T* before = total.data() + begin;
    if (spans_ == 0)
      for (size_t i = 0; i < count; ++i) out[i] = last[i] + T(0);
    else
      for (size_t i = 0; i < count; ++i) out[i] = before[i] + last[i] + T(0);
  }

 private:
  size_t spans_ = 0;  // that have ended
};

}  // namespace sinkref
