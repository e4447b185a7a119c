#pragma once

#include <utility>
#include <vector>

#include "arithmetic/chain_roundings.h"
#include "measure/first_layer/first_layer.h"

// What the analyses of the first attention layer share: layer 0 recorded position by position, and
// the weights through which a detector reads it.

namespace sinkref {

/// One position of one sequence in layer 0.
template <class T>
struct LayerZeroPosition {
  int token = 0;
  std::vector<T> embed, v, z, attn_out, resid_post;  ///< [d] [K·h] [H·h] [d] [d]
  std::vector<T> pre;                                ///< of the chosen neurons
  T scale = 0;                                       ///< of ln2
  std::vector<double> same;                          ///< [H] attention to keys of the same token
  struct Key {
    size_t position;
    double attention;
  };
  std::vector<std::vector<Key>> other;               ///< [H] the keys of other tokens
};

template <class T>
using LayerZeroSequence = std::vector<LayerZeroPosition<T>>;

/// Runs layer 0 on every sequence. Attention is recorded for positions >= `from`.
template <class T>
std::vector<LayerZeroSequence<T>> record_layer_zero(const Model& model, const RunOptions& options,
                                                    const std::vector<std::vector<int>>& batch,
                                                    const std::vector<size_t>& neurons,
                                                    size_t from = 0);

/// How a neuron j of layer 0's MLP reads the residual stream and, through W_o, the heads.
struct DetectorReader {
  std::vector<double> direct, direct_magnitude;  ///< W_gate[j,i]·w_i and its absolute value [d]
  std::vector<double> heads, heads_magnitude;    ///< Σ_i direct_i W_o[i,·], Σ_i |direct_i||W_o[i,·]| [H·h]
  double bias_o = 0, bias_o_magnitude = 0, bias_gate = 0;
};
std::vector<DetectorReader> detector_readers(const Model& model,
                                             const std::vector<size_t>& neurons);

/// The account of `position` of a sequence; `index` is the neuron's among those recorded.
template <class T>
PreAccount account(const ModelConfig& config, const DetectorReader& reader, size_t index,
                   const LayerZeroSequence<T>& sequence, size_t position);

/// Adds up accounts; divided by their number it is their mean, and adds up as they do.
void add(PreAccount& total, const PreAccount& one);
void divide(PreAccount& total, double count);

/// γ_n = n·u / (1 - n·u): the relative error of a result whose terms pass n roundings to T.
template <class T>
double rounding(size_t roundings);

/// W_o in double's reach: the matrix, and per head the Gram matrix W_o,hᵀ W_o,h, with which
/// ‖W_o,h x‖ costs h² instead of d·h.
class OutputWeights {
 public:
  explicit OutputWeights(const Model& model);
  double head_norm(size_t head, const std::vector<double>& x) const;  ///< ‖W_o,h x‖, x [h]
  std::vector<double> product(const std::vector<double>& z) const;    ///< W_o z, z [H·h]
  std::vector<double> head_product(size_t head, const std::vector<double>& x) const;
  /// |W_o| z: what a rounding error of W_o z is relative to.
  std::vector<double> magnitude(const std::vector<double>& z) const;

 private:
  size_t heads_, head_dim_;
  Matrix<float> w_;
  std::vector<std::vector<double>> gram_;  // [H][h·h]
};

/// Head `head`'s values at a position: [h] of v's K·h.
template <class T>
const T* head_value(const ModelConfig& c, const LayerZeroPosition<T>& position, size_t head) {
  return position.v.data() + head / (c.heads / c.kv_heads) * c.head_dim;
}

}  // namespace sinkref
