#include "measure/definitions/massive.h"

#include <algorithm>
#include <cmath>

namespace sinkref {

namespace {

constexpr size_t kept = 3;

/// resid_post of one layer, all positions.
struct Residual {
  size_t width = 0;
  std::vector<float> values;  // [position][dimension]
};

MassiveLayer summarize(const Residual& residual) {
  std::vector<double> magnitudes(residual.values.size());
  std::transform(residual.values.begin(), residual.values.end(), magnitudes.begin(),
                 [](float x) { return std::fabs(static_cast<double>(x)); });
  std::vector<size_t> order(magnitudes.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  const size_t count = std::min(kept, order.size());
  std::partial_sort(order.begin(), order.begin() + static_cast<long>(count), order.end(),
                    [&](size_t a, size_t b) {
                      return magnitudes[a] != magnitudes[b] ? magnitudes[a] > magnitudes[b] : a < b;
                    });
  MassiveLayer layer;
  for (size_t i = 0; i < count; ++i)
    layer.largest.push_back({order[i] / residual.width, order[i] % residual.width,
                             static_cast<double>(residual.values[order[i]])});
  const double top = magnitudes[order[0]];
  const auto row = magnitudes.begin() + static_cast<long>(order[0] / residual.width * residual.width);
  layer.median_token = median({row, row + static_cast<long>(residual.width)});
  layer.median_all = median(std::move(magnitudes));
  layer.by_all = top > massive_magnitude && top >= massive_over_median * layer.median_all;
  layer.by_token = top > massive_magnitude && top >= massive_over_median * layer.median_token;
  return layer;
}

}  // namespace

std::vector<MassiveLayer> massive_activations(const Model& model, const RunOptions& options,
                                              const std::vector<int>& text) {
  // Rows come in the order of the positions, whatever the chunk.
  std::vector<Residual> residuals(model.config().layers);
  Hooks<float> hooks;
  for (size_t layer = 0; layer < residuals.size(); ++layer)
    hooks.add({HookPoint::ResidPost, layer}, [&residual = residuals[layer]](const Activation<float>& a) {
      residual.width = a.width;
      for (size_t r = 0; r < a.rows.size(); ++r)
        residual.values.insert(residual.values.end(), a.row(r), a.row(r) + a.width);
    });
  run(model, options, {text}, hooks);
  std::vector<MassiveLayer> layers;
  for (const Residual& residual : residuals) layers.push_back(summarize(residual));
  return layers;
}

}  // namespace sinkref
