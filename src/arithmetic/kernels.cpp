#include "sinkref/kernels.h"

#include "arithmetic/tables.h"
#include "sinkref/error.h"

namespace sinkref {

namespace {
constexpr const char* targets[] = {"avx2", "avx512", "neon"};
}

std::vector<std::string> available_kernels() {
  std::vector<std::string> names = {"spec"};
  for (const char* target : targets)
    if (simd_kernels(target, float{}) != nullptr) names.push_back(target);
  return names;
}

template <class T>
const Kernels<T>& find_kernels(const std::string& name) {
  if (name == "spec") return checked(spec_kernels(T{}));
  if (name == "openblas") return checked(openblas_kernels(T{}));
  if (const Kernels<T>* found = simd_kernels(name, T{})) return checked(*found);
  std::string known = "auto";
  for (const std::string& other : available_kernels()) known += ", " + other;
  known += ", openblas";
  throw InputError("--kernel " + quoted(name) + ": expected one of those this machine can run: " +
                   known);
}

template const Kernels<float>& find_kernels<float>(const std::string&);
template const Kernels<double>& find_kernels<double>(const std::string&);

void require_fma() {
#if defined(__x86_64__)
  if (!__builtin_cpu_supports("fma") || !__builtin_cpu_supports("avx2"))
    throw InputError("this processor has no AVX2 with FMA, which the arithmetic is defined by; "
                     "use a machine that has it (any x86-64 since 2013)");
#endif
}

}  // namespace sinkref
