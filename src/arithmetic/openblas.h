#pragma once

#include <string>

namespace sinkref {

/// The processor whose kernels OpenBLAS has chosen. Throws InputError if it cannot be loaded.
std::string openblas_core();

}  // namespace sinkref
