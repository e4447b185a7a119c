#include <algorithm>
#include <catch2/catch.hpp>

#include "sinkref/kernels.h"

using namespace sinkref;

namespace {

bool available(const std::string& kernel) {
  const std::vector<std::string> all = available_kernels();
  return std::find(all.begin(), all.end(), kernel) != all.end();
}

}  // namespace

// The tests of the vector kernels run those that there are, and would pass if there were none.
TEST_CASE("machine: a processor with vectors has its kernels, and auto takes one", "[kernels]") {
#if defined(__x86_64__)
  const bool vectors = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                       __builtin_cpu_supports("bmi2");
  if (vectors) CHECK(available("avx2"));
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl"))
    CHECK(available("avx512"));
#elif defined(__aarch64__)
  const bool vectors = true;
  CHECK(available("neon"));
#else
  const bool vectors = false;
#endif
  if (vectors) {
    CHECK(find_kernels<float>("auto").name != std::string("spec"));
    CHECK(find_kernels<double>("auto").name != std::string("spec"));
  }
}
