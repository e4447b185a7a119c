#pragma once

#include "sinkref/config.h"

namespace sinkref {

/// The two sources of a configuration; neither is checked as a whole yet.
ModelConfig read_hugging_face_config(const Checkpoint& checkpoint);
ModelConfig read_gguf_config(const Checkpoint& checkpoint);

}  // namespace sinkref
