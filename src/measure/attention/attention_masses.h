#pragma once

#include <vector>

#include "measure/observe.h"

// Where attention goes in ordinary text and along a run of repeats (Yona et al. 2025,
// figure 1). Attention on position 0, attention on the run, and the norm are three measurements:
// none of them stands for another.

namespace sinkref {

/// One layer, by the position q of the query; means over the heads.
struct LayerAttention {
  size_t layer = 0;
  std::vector<double> on_first;  ///< A[q,0]
  std::vector<double> on_body;   ///< Σ A[q,k] over body <= k <= q; position 0 is never counted here
  std::vector<double> norm;      ///< ‖resid_post‖ of the layer at q
  /// Scores before softmax (the paper's figure 1) of the first map_positions queries, [q][k <= q].
  std::vector<std::vector<double>> scores;
};

inline constexpr size_t map_positions = 48;

/// Watches chosen layers of one run. Must outlive it.
class AttentionMasses {
 public:
  /// `body`: where the run begins (at least 1).
  AttentionMasses(const std::vector<size_t>& layers, size_t body, size_t heads, size_t length);
  void attach(Hooks<float>& hooks);
  const std::vector<LayerAttention>& layers() const { return layers_; }

 private:
  void add_pattern(LayerAttention& layer, const Activation<float>& a) const;
  void add_scores(LayerAttention& layer, const Activation<float>& a) const;

  std::vector<LayerAttention> layers_;
  size_t body_;
  double heads_;
};

/// The layers the paper looks at: each sink and the one after it, the middle and the last; without
/// a sink the first two, the middle and the last. Ascending, each once.
std::vector<size_t> attention_layers(const std::vector<size_t>& sinks, size_t layers);

}  // namespace sinkref
