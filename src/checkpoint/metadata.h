#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <string>

#include "sinkref/checkpoint.h"

namespace sinkref {

/// One of the two is empty.
struct CheckpointMetadata {
  nlohmann::json config;                       ///< config.json of a folder; for GGUF null
  std::map<std::string, nlohmann::json> gguf;  ///< "llama.block_count", "tokenizer.ggml.tokens", …
};

}  // namespace sinkref
