// The vector kernels of double for every target.

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "arithmetic/simd/simd_double.cpp"
#include <hwy/foreach_target.h>  // must come before highway.h
#include <hwy/highway.h>

#include "arithmetic/simd/table-inl.h"

HWY_BEFORE_NAMESPACE();
namespace sinkref {
namespace HWY_NAMESPACE {
template const Kernels<double>* table<double>(const char* name);
}  // namespace HWY_NAMESPACE
}  // namespace sinkref
HWY_AFTER_NAMESPACE();
