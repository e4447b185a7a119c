#include "measure/attention/attention_masses.h"

#include <algorithm>
#include <set>

namespace sinkref {

AttentionMasses::AttentionMasses(const std::vector<size_t>& layers, size_t body, size_t heads,
                                 size_t length)
    : body_(std::max<size_t>(body, 1)), heads_(static_cast<double>(heads)) {
  for (size_t layer : layers) {
    LayerAttention attention;
    attention.layer = layer;
    attention.on_first.assign(length, 0);
    attention.on_body.assign(length, 0);
    for (size_t q = 0; q < std::min(length, map_positions); ++q)
      attention.scores.emplace_back(q + 1);
    layers_.push_back(std::move(attention));
  }
}

void AttentionMasses::attach(Hooks<float>& hooks) {
  for (LayerAttention& layer : layers_) {
    hooks.add({HookPoint::Pattern, layer.layer},
              [this, &layer](const Activation<float>& a) { add_pattern(layer, a); });
    hooks.add({HookPoint::AttnScores, layer.layer},
              [this, &layer](const Activation<float>& a) { add_scores(layer, a); });
    keep_norms({HookPoint::ResidPost, layer.layer}, layer.norm, hooks);
  }
}

void AttentionMasses::add_pattern(LayerAttention& layer, const Activation<float>& a) const {
  for (size_t r = 0; r < a.rows.size(); ++r) {
    const size_t q = a.rows[r].position;
    if (q >= layer.on_first.size()) continue;  // a continuation of the run
    double body = 0;
    for (size_t k = body_; k <= q; ++k) body += static_cast<double>(a.row(r)[k]);
    layer.on_first[q] += static_cast<double>(a.row(r)[0]) / heads_;
    layer.on_body[q] += body / heads_;
  }
}

void AttentionMasses::add_scores(LayerAttention& layer, const Activation<float>& a) const {
  for (size_t r = 0; r < a.rows.size(); ++r) {
    const size_t q = a.rows[r].position;
    if (q >= layer.scores.size()) continue;
    for (size_t k = 0; k <= q; ++k)
      layer.scores[q][k] += static_cast<double>(a.row(r)[k]) / heads_;
  }
}

std::vector<size_t> attention_layers(const std::vector<size_t>& sinks, size_t layers) {
  std::set<size_t> chosen = {layers / 2, layers - 1};
  for (size_t sink : sinks.empty() ? std::vector<size_t>{0} : sinks) {
    chosen.insert(sink);
    if (sink + 1 < layers) chosen.insert(sink + 1);
  }
  return {chosen.begin(), chosen.end()};
}

}  // namespace sinkref
