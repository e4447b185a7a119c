#pragma once

#include <string>

namespace sinkref {

// Names as the model's table has them: src/model/tensors.cpp.

/// "blk.3.attn_q.weight" -> "model.layers.3.self_attn.q_proj.weight". A name that has no
/// counterpart ("rope_freqs.weight") stays as it is.
std::string hugging_face_name(const std::string& gguf_name);

/// Whether it is a weight or bias of q or k, whose rows GGUF interleaves.
bool is_rotated(const std::string& gguf_name);

}  // namespace sinkref
