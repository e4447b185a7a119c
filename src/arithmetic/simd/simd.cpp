// The vector kernels: the sums of number.h with vector lanes over *outputs*, so that no sum ever
// crosses a lane, a tile or a thread, and the width of a vector cannot change a bit. Only this folder
// knows Highway. This file chooses; simd_float.cpp and simd_double.cpp, the two that take long to
// compile, hold the kernels for every target that a processor of this kind may offer.

#include <hwy/targets.h>

#include "arithmetic/tables.h"

namespace sinkref {

#define SINKREF_TARGET(NAMESPACE)             \
  namespace NAMESPACE {                       \
  template <class T>                          \
  const Kernels<T>* table(const char* name);  \
  }
SINKREF_TARGET(N_AVX3)
SINKREF_TARGET(N_AVX2)
SINKREF_TARGET(N_NEON)
#undef SINKREF_TARGET

namespace {

template <class T>
const Kernels<T>* find(const std::string& target) {
  const bool best = target == "auto";
  [[maybe_unused]] const int64_t runs = hwy::SupportedTargets();
#if HWY_TARGETS & HWY_AVX3
  if ((best || target == "avx512") && (runs & HWY_AVX3)) return N_AVX3::table<T>("avx512");
#endif
#if HWY_TARGETS & HWY_AVX2
  if ((best || target == "avx2") && (runs & HWY_AVX2)) return N_AVX2::table<T>("avx2");
#endif
#if HWY_TARGETS & HWY_NEON
  if ((best || target == "neon") && (runs & HWY_NEON)) return N_NEON::table<T>("neon");
#endif
  return nullptr;
}

}  // namespace

const Kernels<float>* simd_kernels(const std::string& target, float) { return find<float>(target); }
const Kernels<double>* simd_kernels(const std::string& target, double) {
  return find<double>(target);
}

}  // namespace sinkref
