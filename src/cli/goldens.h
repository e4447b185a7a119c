#pragma once

#include <nlohmann/json.hpp>
#include <vector>

#include "verify/golden.h"

namespace sinkref::cli {

// What report and verify say of golden files.
nlohmann::ordered_json golden_json(const GoldenResult& golden);
void print_goldens(const std::vector<GoldenResult>& goldens);

}  // namespace sinkref::cli
