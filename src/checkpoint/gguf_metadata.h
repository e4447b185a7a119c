#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <string>

#include "checkpoint/gguf_reader.h"

namespace sinkref {

/// Reads `count` keys with their values from where the reader stands. Throws InputError for a
/// length that does not fit, an unknown type, or a key that stands twice.
void read_metadata(GgufReader& in, uint64_t count, std::map<std::string, nlohmann::json>& metadata);

}  // namespace sinkref
