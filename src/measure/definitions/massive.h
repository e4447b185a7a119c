#pragma once

#include <vector>

#include "measure/observe.h"

// Massive activations (Sun et al. 2024, arXiv 2402.17762, section 2): single values of the residual
// stream that are larger than 100 and about 1000 times the median magnitude of the hidden state.

namespace sinkref {

inline constexpr double massive_magnitude = 100;
inline constexpr double massive_over_median = 1000;

struct MassiveActivation {
  size_t position, dimension;
  double value;  ///< with its sign
};

/// One layer's resid_post over ordinary text.
struct MassiveLayer {
  std::vector<MassiveActivation> largest;  ///< the three largest magnitudes, descending
  double median_all = 0;    ///< median |x| over all positions and dimensions, as their code logs
  double median_token = 0;  ///< over the dimensions of the largest one's own position
  /// > 100 and >= 1000 medians. Which median is meant decides the verdict on some models: both.
  bool by_all = false, by_token = false;
};

/// [layer], from one run of the text (BOS included where the model wants one).
std::vector<MassiveLayer> massive_activations(const Model& model, const RunOptions& options,
                                              const std::vector<int>& text);

}  // namespace sinkref
