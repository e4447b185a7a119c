#include "measure/observe.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace sinkref {

double mean(const std::vector<double>& values, size_t from) {
  if (values.size() <= from) return 0;
  return std::accumulate(values.begin() + static_cast<long>(from), values.end(), 0.0) /
         static_cast<double>(values.size() - from);
}

double median(std::vector<double> values) {
  if (values.empty()) return 0;
  const auto middle = values.begin() + static_cast<long>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  if (values.size() % 2 == 1) return *middle;
  return (*middle + *std::max_element(values.begin(), middle)) / 2;
}

void keep_norms(Hook hook, std::vector<double>& by_position, Hooks<float>& hooks) {
  hooks.add(hook, [&by_position](const Activation<float>& a) {
    for (size_t r = 0; r < a.rows.size(); ++r) {
      if (a.rows[r].sequence != 0) continue;
      if (by_position.size() <= a.rows[r].position) by_position.resize(a.rows[r].position + 1);
      by_position[a.rows[r].position] = norm(a.row(r), a.width);
    }
  });
}

void keep_all_norms(size_t layers, AllNorms& norms, Hooks<float>& hooks) {
  norms.mlp.assign(layers, {});
  norms.resid.assign(layers, {});
  for (size_t layer = 0; layer < layers; ++layer) {
    keep_norms({HookPoint::MlpOut, layer}, norms.mlp[layer], hooks);
    keep_norms({HookPoint::ResidPost, layer}, norms.resid[layer], hooks);
  }
}

size_t caches_at_once(const ModelConfig& config, size_t positions) {
  constexpr size_t bytes = size_t{512} << 20;
  return std::max<size_t>(1, bytes / (config.cache_bytes_per_token() * std::max<size_t>(positions, 1)));
}

std::vector<double> probabilities(const float* logits, size_t n) {
  const double largest = logits[argmax<float>({logits, n})];
  std::vector<double> p(n);
  double sum = 0;
  for (size_t i = 0; i < n; ++i) sum += p[i] = std::exp(logits[i] - largest);
  for (double& value : p) value /= sum;
  return p;
}

}  // namespace sinkref
