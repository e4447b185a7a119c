#pragma once

#include <string>
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
  /// Scores before softmax (the paper's figure 1) at the chosen positions p: [i][j <= i] is that of query
  /// p[i] and key p[j].
  std::vector<std::vector<double>> scores;
};

/// The positions that a map of so many shows: all of a short sequence; of a long one all of the beginning,
/// then about evenly by their logarithm, and the last.
inline constexpr size_t map_positions = 48;
std::vector<size_t> chosen_positions(size_t length);

/// Watches chosen layers of one run. Must outlive it.
struct AttentionMasses {
  std::vector<LayerAttention> layers;
  std::vector<size_t> score_positions;  ///< chosen_positions()
  size_t body = 1;                      ///< where the run begins (at least 1)
  size_t heads = 1;

  void attach(Hooks<float>& hooks);
};
AttentionMasses attention_masses(const std::vector<size_t>& layers, size_t body, size_t heads, size_t length);

/// The layers the paper looks at: each sink and the one after it, the middle and the last; without
/// a sink the first two, the middle and the last. Ascending, each once.
std::vector<size_t> attention_layers(const std::vector<size_t>& sinks, size_t layers);

}  // namespace sinkref
