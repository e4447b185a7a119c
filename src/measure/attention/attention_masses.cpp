#include "measure/attention/attention_masses.h"

#include <algorithm>
#include <cmath>
#include <set>

namespace sinkref {

std::vector<size_t> chosen_positions(size_t length) {
  std::vector<size_t> chosen;
  if (length <= map_positions) {
    for (size_t p = 0; p < length; ++p) chosen.push_back(p);
    return chosen;
  }
  // Half of them from the beginning, each; then in steps of a constant ratio to the last.
  constexpr size_t each = map_positions / 2;
  for (size_t p = 0; p < each; ++p) chosen.push_back(p);
  for (size_t i = 1; i <= map_positions - each; ++i) {
    const double share = double(i) / double(map_positions - each);
    const double at = double(each - 1) * std::pow(double(length - 1) / double(each - 1), share);
    const size_t p = i == map_positions - each ? length - 1 : static_cast<size_t>(at + 0.5);
    if (p > chosen.back()) chosen.push_back(p);
  }
  return chosen;
}

AttentionMasses attention_masses(const std::vector<size_t>& layers, size_t body, size_t heads,
                                 size_t length) {
  AttentionMasses masses{{}, chosen_positions(length), std::max<size_t>(body, 1), heads};
  for (size_t layer : layers) {
    LayerAttention attention;
    attention.layer = layer;
    attention.on_first.assign(length, 0);
    attention.on_body.assign(length, 0);
    for (size_t i = 0; i < masses.score_positions.size(); ++i) attention.scores.emplace_back(i + 1);
    masses.layers.push_back(std::move(attention));
  }
  return masses;
}

namespace {

void add_pattern(const AttentionMasses& masses, LayerAttention& layer, const Activation<float>& a) {
  const double heads = static_cast<double>(masses.heads);
  for (size_t r = 0; r < a.rows.size(); ++r) {
    const size_t q = a.rows[r].position;
    if (q >= layer.on_first.size()) continue;  // a continuation of the run
    double body = 0;
    for (size_t k = masses.body; k <= q; ++k) body += static_cast<double>(a.row(r)[k]);
    layer.on_first[q] += static_cast<double>(a.row(r)[0]) / heads;
    layer.on_body[q] += body / heads;
  }
}

void add_scores(const AttentionMasses& masses, LayerAttention& layer, const Activation<float>& a) {
  const std::vector<size_t>& shown = masses.score_positions;
  for (size_t r = 0; r < a.rows.size(); ++r) {
    const auto query = std::lower_bound(shown.begin(), shown.end(), a.rows[r].position);
    if (query == shown.end() || *query != a.rows[r].position) continue;
    const size_t i = static_cast<size_t>(query - shown.begin());
    for (size_t j = 0; j <= i; ++j)
      layer.scores[i][j] += static_cast<double>(a.row(r)[shown[j]]) / static_cast<double>(masses.heads);
  }
}

}  // namespace

void AttentionMasses::attach(Hooks<float>& hooks) {
  for (LayerAttention& layer : layers) {
    hooks.add({HookPoint::Pattern, layer.layer},
              [this, &layer](const Activation<float>& a) { add_pattern(*this, layer, a); });
    hooks.add({HookPoint::AttnScores, layer.layer},
              [this, &layer](const Activation<float>& a) { add_scores(*this, layer, a); });
    keep_norms({HookPoint::ResidPost, layer.layer}, layer.norm, hooks);
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
