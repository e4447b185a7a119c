#include "verify/advice.h"

#include <map>

namespace sinkref {

namespace {

/// By the slug of the fault; those that have no remedy but reading the code are not here.
const std::map<std::string, std::string> remedies = {
    {"activation", "hidden_act of config.json says which function the gate goes through"},
    {"attention_scale", "scale q·k by 1/sqrt(head_dim), once"},
    {"bias", "load the biases: attention_bias and mlp_bias of config.json say which there are"},
    {"bos", "add BOS once: by the tokenizer or by the caller, not by both or neither"},
    {"centred_logits", "load without processing, or compare everything but the logits"},
    {"embedding_scale", "LLaMA and Mistral do not scale the embedding (Gemma does)"},
    {"gate_up", "gate_proj goes through the activation, up_proj does not; see how they are loaded or fused"},
    {"gqa_mapping", "query head i reads key head i / (heads / kv_heads), as repeat_interleave does"},
    {"kv_cache", "if the narrow cache is meant, say so with --candidate-cache and its rounding is allowed for"},
    {"kv_swapped", "look at where k_proj and v_proj are loaded or split from a fused matrix"},
    {"norm_eps", "take rms_norm_eps from config.json; it is added to the mean square, before the root"},
    {"norm_kind", "RMSNorm takes no mean off"},
    {"norm_precision", "compute the norm in fp32, its weight too, and round once at the end"},
    {"norm_weight", "apply the norm's weight exactly once: in the norm, or folded into the matrices after it"},
    {"patch", "compare layer, neurons, first position and side (up or gate) with --patch"},
    {"positions", "positions count from 0 at the first token; with a cache they go on from its length"},
    {"precision", "say --candidate-dtype, or compute in fp32"},
    {"qk_rows", "q_proj and k_proj are stored for one of the two RoPE pairings: permute once, when loading"},
    {"qk_swapped", "look at where q_proj and k_proj are loaded or split from a fused matrix"},
    {"rope_base", "take rope_theta from config.json (rope_parameters in newer files)"},
    {"rope_direction", "turn by +angle: x' = x cos - y sin, y' = y cos + x sin"},
    {"rope_missing", "apply RoPE to queries and keys before the scores, at every position but 0 it shows"},
    {"rope_pairing",
     "turn x[i] with x[i + head_dim/2] (rotate_half), or permute the rows of q_proj and k_proj to your pairing"},
    {"rope_scaling", "apply rope_scaling of config.json (rope_parameters in newer files) to the frequencies"},
    {"sliding_window", "a query sees `sliding_window` keys, itself included: 0 <= q - k < sliding_window"},
    {"softmax_one", "if softmax_1 is meant, verify with --softmax one"},
    {"tied_output", "tie_word_embeddings of config.json says whether lm_head is the embedding"},
    {"tokens", "compare the tokenizer's ids before anything else"},
};

/// Hooks of the model between the supplied one before `first` and `first` itself.
size_t steps_between(const Candidate& candidate, Hook first, size_t layers, std::string& last_supplied) {
  const std::vector<Hook> all = all_hooks(layers);
  const size_t index = hook_index(first, layers);
  size_t before = index;
  while (before > 0 && !candidate.has(all[before - 1])) --before;
  if (before > 0) last_supplied = hook_name(all[before - 1]);
  return index - before;
}

}  // namespace

std::string next_step(const Model& model, const Candidate& candidate, const VerifyResult& result) {
  if (!result.diagnosis.empty()) {
    const auto remedy = remedies.find(result.diagnosis.front().fault);
    if (remedy != remedies.end()) return remedy->second;
  }
  const Hook first = result.tensors[*result.first].hook;
  std::string last;
  const size_t hidden = steps_between(candidate, first, model.config().layers, last);
  if (hidden == 0) return std::string("its input agrees: look at this step alone, ") + hook_info(first.point).formula;
  const std::string block = is_after_blocks(first.point) ? "ln_final.*"
                            : "blocks." + std::to_string(first.layer) + ".*";
  return std::to_string(hidden) + " steps between " + (last.empty() ? "the tokens" : last) + " and " +
         hook_name(first) + " are not in the trace; capture " + block + " to see which it is";
}

}  // namespace sinkref
