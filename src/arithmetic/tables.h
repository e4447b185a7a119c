#pragma once

#include "sinkref/kernels.h"

namespace sinkref {

// The argument only chooses the type.
const Kernels<float>& spec_kernels(float);
const Kernels<double>& spec_kernels(double);

/// The vector kernels of one target ("avx2", "avx512", "neon"), or null if this machine cannot run
/// it or this build lacks it. "auto" gives the best.
const Kernels<float>* simd_kernels(const std::string& target, float);
const Kernels<double>* simd_kernels(const std::string& target, double);

/// The vector kernels with OpenBLAS's products: other bits, never chosen by "auto".
const Kernels<float>& openblas_kernels(float);
const Kernels<double>& openblas_kernels(double);

/// The same kernels. In a build with checks (sinkref/check.h) each of them first checks what it is
/// given, and, under AddressSanitizer, that all of it is memory that may be used.
#ifdef SINKREF_CHECKS
template <class T>
const Kernels<T>& checked(const Kernels<T>& kernels);
#else
template <class T>
const Kernels<T>& checked(const Kernels<T>& kernels) {
  return kernels;
}
#endif

}  // namespace sinkref
