#pragma once

#include <cstdint>

namespace sinkref {

/// splitmix64: a key to a number that looks random.
inline uint64_t mixed(uint64_t x) {
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

/// Uniform with mean 0 and variance 1, the same for the same key wherever it is asked for.
inline double uniform(uint64_t key) {
  return (static_cast<double>(mixed(key) >> 11) * 0x1p-53 - 0.5) * 3.4641016151377544;
}

}  // namespace sinkref
