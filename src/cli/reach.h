#pragma once

#include <string>

#include "certify/cost.h"

namespace sinkref::cli {

/// "it will take about 40 s and 300 MB beside the weights"
std::string estimate_text(const CertifyCost& cost);

/// Why this is not begun, said before the run and not after hours of it: more than an hour, or than the free memory.
/// Empty if it can be.
std::string out_of_reach(const CertifyCost& cost);

}  // namespace sinkref::cli
