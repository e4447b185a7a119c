#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "sinkref/checkpoint.h"
#include "sinkref/config.h"
#include "sinkref/tensor.h"

namespace sinkref {

/// Weights of one block, (outputs, inputs) as in Hugging Face; biases are empty if there are none.
struct LayerWeights {
  std::vector<float> ln1, ln2;        ///< RMSNorm weights [d]
  StoredMatrix wq, wk, wv, wo;        ///< [H·h,d] [K·h,d] [K·h,d] [d,H·h]
  StoredMatrix w_gate, w_up, w_down;  ///< [m,d] [m,d] [d,m]
  std::vector<float> bq, bk, bv, bo, b_gate, b_up, b_down;  ///< [H·h] [K·h] [K·h] [d] [m] [m] [d]
};

/// A checkpoint ready to run. Matrices stay in the mapped file in their stored type; the norms and
/// biases (a few numbers) are copied, each layer's when it is first used.
class Model {
 public:
  /// Checks every tensor's presence, shape and type; reads no weights. Throws InputError.
  static Model open(const std::filesystem::path& path);
  explicit Model(Checkpoint checkpoint);
  /// Changes a layer's weights when it is first used.
  using Edit = std::function<void(size_t layer, LayerWeights&)>;
  /// "What if": the checkpoint's weights under another configuration of the same shapes. verify
  /// asks such questions to explain another implementation's numbers.
  Model(Checkpoint checkpoint, ModelConfig config, Edit edit = {});

  const ModelConfig& config() const { return config_; }
  const Checkpoint& checkpoint() const { return checkpoint_; }
  const StoredMatrix& embedding() const { return embedding_; }  ///< [V,d]
  const StoredMatrix& lm_head() const { return lm_head_; }      ///< [V,d]; the embedding if tied
  std::vector<float> final_norm() const;                        ///< [d]
  const LayerWeights& layer(size_t index) const;
  /// RoPE's frequencies [h/2] in fp32, as Hugging Face forms them.
  const std::vector<float>& inv_freq() const { return inv_freq_; }

  /// The identity of the numbers a run of the first `depth` blocks uses (with the head if `depth`
  /// is all), whatever file and stored type they come from: SHA-256 over a line
  /// "name|shape|sha256 of the fp32 values" per tensor, in the order of the names. Reads them all,
  /// the first time. Throws InputError for a weight that is NaN or infinite.
  const std::string& weights_sha256(size_t depth) const;
  /// Throws InputError that names the first weight that is NaN or infinite. Reads them all: it is
  /// asked when a run's values have turned out not to be finite.
  void require_finite_weights(size_t depth) const;

  /// Names and shapes of all the tensors that the config calls for.
  struct Needed {
    std::string name;
    std::vector<uint64_t> shape;
    size_t layer;  ///< block, or `layers` for the head, or 0 for the embedding
  };
  std::vector<Needed> needed_tensors() const;

 private:
  std::vector<Needed> tensors_of_run(size_t depth) const;
  bool has_bias(const std::string& linear) const;

  Checkpoint checkpoint_;
  ModelConfig config_;
  StoredMatrix embedding_, lm_head_;
  std::vector<float> inv_freq_;
  Edit edit_;
  mutable std::vector<std::unique_ptr<LayerWeights>> layers_;
  mutable std::map<size_t, std::string> hashes_;  // by depth
};

/// inv_freq [head_dim/2] with the bits of Hugging Face: exponent 2i/h, power, reciprocal, scaling,
/// each rounded to fp32 (modeling_rope_utils.py). See src/model/rope.cpp for what is recorded.
std::vector<float> rope_inv_freq(const ModelConfig& config);

}  // namespace sinkref
