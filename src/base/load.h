#pragma once

#include <bit>
#include <cstddef>
#include <cstring>
#include <type_traits>

namespace sinkref {

static_assert(std::endian::native == std::endian::little,
              "checkpoints are little-endian and are used as they lie in the file");

/// A number that need not be aligned.
template <class T>
T load(const std::byte* from) {
  static_assert(std::is_trivially_copyable_v<T>);
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

}  // namespace sinkref
