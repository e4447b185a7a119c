#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "sinkref/checkpoint.h"

namespace sinkref {

enum class RopeScaling { None, Linear, Llama3 };

/// Rotary position embedding (hf-modeling_rope_utils.py, `ROPE_INIT_FUNCTIONS`).
struct RopeConfig {
  double theta = 10000.0;
  RopeScaling scaling = RopeScaling::None;
  double factor = 1.0;                ///< linear and llama3
  double low_freq_factor = 1.0;       ///< llama3
  double high_freq_factor = 4.0;      ///< llama3
  double original_max_positions = 0;  ///< llama3
  /// GGUF keeps llama3 scaling as a tensor of fp32 divisors of inv_freq (head_dim/2 of them)
  /// instead of the four numbers above; empty otherwise.
  std::vector<float> freq_divisors;
};

/// Everything that distinguishes one LLaMA/Mistral checkpoint from another: one field per
/// variation, filled from config.json or GGUF metadata and validated. A setting that changes the
/// mathematics and is not represented here is refused by name when the checkpoint is read.
struct ModelConfig {
  std::string model_type;        ///< "llama" or "mistral"; for display only, never used in the math
  size_t vocab_size = 0;         ///< V
  size_t hidden_size = 0;        ///< d
  size_t intermediate_size = 0;  ///< m, the MLP's width
  size_t layers = 0;
  size_t heads = 0;     ///< H
  size_t kv_heads = 0;  ///< K; query head i reads key/value head i / (H/K)  (GQA)
  size_t head_dim = 0;  ///< h; need not be hidden_size / heads
  /// Bytes of keys and values, in fp32, that one position of one sequence keeps.
  size_t cache_bytes_per_token() const { return 2 * layers * kv_heads * head_dim * sizeof(float); }
  double rms_norm_eps = 1e-6;
  size_t max_positions = 0;              ///< longer inputs are an error
  std::optional<size_t> sliding_window;  ///< W: key k is seen by query q if q - W < k <= q
  RopeConfig rope;
  bool attention_bias = false;  ///< biases on q, k, v and o, as far as the file has them; else 0
  bool mlp_bias = false;        ///< biases on gate, up and down, likewise
  bool tied_output = false;     ///< lm_head is the embedding matrix
  std::optional<int> bos_id;
  std::vector<int> eos_ids;  ///< generation stops at any of them
  /// What a reader of results should know: settings passed over because they change nothing, and
  /// what a GGUF file cannot say. One sentence each.
  std::vector<std::string> notes;
};

/// Reads and validates config.json (transformers 4 or 5 keys) or the GGUF metadata.
ModelConfig read_config(const Checkpoint& checkpoint);

}  // namespace sinkref
