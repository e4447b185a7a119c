#pragma once

#include <cstddef>
#include <new>
#include <vector>

namespace sinkref {

/// Memory that begins with a cache line, so that no vector lies across two.
template <class T>
struct LineAllocator {
  using value_type = T;
  static constexpr std::align_val_t line{64};

  LineAllocator() = default;
  template <class Other>
  LineAllocator(const LineAllocator<Other>&) {}
  T* allocate(size_t n) { return static_cast<T*>(::operator new(n * sizeof(T), line)); }
  void deallocate(T* p, size_t) { ::operator delete(p, line); }
  bool operator==(const LineAllocator&) const = default;
};
template <class T>
using Lines = std::vector<T, LineAllocator<T>>;

/// The two outer levels of many chains: blocks are added to `span`, spans to `total`.
template <class T>
struct Sums {
  Lines<T> span, total;

  void reset(size_t n) {
    span.assign(n, T(0));
    total.assign(n, T(0));
  }
  void end_span() {
    for (size_t i = 0; i < total.size(); ++i) {
      total[i] = total[i] + span[i];
      span[i] = T(0);
    }
  }
};

}  // namespace sinkref
