#pragma once

#include <string>
#include <vector>

#include "sinkref/forward.h"

namespace sinkref {

/// Whether attention writes to the residual stream as one, or each head by itself (and the bias of W_O).
enum class Writers { layers, heads };

/// The exact split of one attention score over what wrote the residual streams of its query and of its key (QK
/// attribution; Elhage et al. 2021). With the norm's scales σ held as they are, q and k are linear in the stream:
///
///     score = Σᵢ Σⱼ ⟨ RoPE_q W_Q (w ⊙ writerᵢ) / σ_q , RoPE_k W_K (w ⊙ writerⱼ) / σ_k ⟩ / √h
///
/// where a writer is the embedding, a head, an MLP or a bias. values[i][j] is one such term, in float64; their sum, row
/// by row, differs from the engine's score by no more than `bound`, which is derived (src/model/attribution.cpp).
struct ScoreAttribution {
  std::vector<std::string> query_labels, key_labels;  ///< "embed", "0.head.3" or "0.attn", "0.mlp", "0.attn.bias", "bias"
  Matrix<double> values;                              ///< (query writers, key writers)
  double score = 0;                                   ///< as the engine has it: scaled
  double bound = 0;                                   ///< of |score - Σ values|, in the score's unit
};

/// The score of one head, query and key of a run. Throws InputError for what the model or the prompt does not have,
/// and for a key that the query does not see.
template <class T>
ScoreAttribution attribute_score(const Model& model, const RunOptions& options, const std::vector<int>& tokens,
                                 size_t layer, size_t head, size_t query, size_t key, Writers writers);

}  // namespace sinkref
