// The vector kernels: the text of spec.cpp with vector lanes over *outputs*, so that no sum ever
// crosses a lane, a tile or a thread, and the width of a vector cannot change a bit. Only this file
// and its *-inl.h know Highway; they are compiled once per target by foreach_target.h.

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "arithmetic/simd/simd.cpp"
#include <hwy/foreach_target.h>  // must come before highway.h
#include <hwy/highway.h>

#include "arithmetic/simd/attention-inl.h"
#include "arithmetic/simd/math-inl.h"
#include "arithmetic/simd/matmul-inl.h"
#include "arithmetic/tables.h"

HWY_BEFORE_NAMESPACE();
namespace sinkref {
namespace HWY_NAMESPACE {

template <class T>
const Kernels<T>* table(const char* name) {
  static const Kernels<T> kernels{name,       matmuls<T>,         scores<T>,
                                  softmax<T>, softmax_largest<T>, weighted_sum<T>, silu_mul<T>};
  return &kernels;
}

const Kernels<float>* float_table(const char* name) { return table<float>(name); }
const Kernels<double>* double_table(const char* name) { return table<double>(name); }

}  // namespace HWY_NAMESPACE
}  // namespace sinkref
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sinkref {

namespace {

template <class T, class Table32, class Table64>
const Kernels<T>* of_type(const char* name, Table32 table32, Table64 table64) {
  if constexpr (sizeof(T) == 4) return table32(name);
  else return table64(name);
}

template <class T>
const Kernels<T>* find(const std::string& target) {
  const bool best = target == "auto";
  [[maybe_unused]] const int64_t runs = hwy::SupportedTargets();
#if HWY_TARGETS & HWY_AVX3
  if ((best || target == "avx512") && (runs & HWY_AVX3))
    return of_type<T>("avx512", N_AVX3::float_table, N_AVX3::double_table);
#endif
#if HWY_TARGETS & HWY_AVX2
  if ((best || target == "avx2") && (runs & HWY_AVX2))
    return of_type<T>("avx2", N_AVX2::float_table, N_AVX2::double_table);
#endif
#if HWY_TARGETS & HWY_NEON
  if ((best || target == "neon") && (runs & HWY_NEON))
    return of_type<T>("neon", N_NEON::float_table, N_NEON::double_table);
#endif
  return nullptr;
}

}  // namespace

const Kernels<float>* simd_kernels(const std::string& target, float) { return find<float>(target); }
const Kernels<double>* simd_kernels(const std::string& target, double) {
  return find<double>(target);
}

}  // namespace sinkref
#endif  // HWY_ONCE
