// The table of one target's kernels. What includes this is compiled once per target (foreach_target.h).

#if defined(SINKREF_SIMD_TABLE_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef SINKREF_SIMD_TABLE_INL_H
#undef SINKREF_SIMD_TABLE_INL_H
#else
#define SINKREF_SIMD_TABLE_INL_H
#endif

#include "arithmetic/simd/attention-inl.h"
#include "arithmetic/simd/math-inl.h"
#include "arithmetic/simd/matmul-inl.h"

HWY_BEFORE_NAMESPACE();
namespace sinkref {
namespace HWY_NAMESPACE {

template <class T>
const Kernels<T>* table(const char* name) {
  static const Kernels<T> kernels{name,       matmuls<T>,         scores<T>,
                                  softmax<T>, softmax_largest<T>, weighted_sum<T>, silu_mul<T>};
  return &kernels;
}

}  // namespace HWY_NAMESPACE
}  // namespace sinkref
HWY_AFTER_NAMESPACE();

#endif  // SINKREF_SIMD_TABLE_INL_H
