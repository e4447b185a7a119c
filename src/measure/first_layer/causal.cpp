// The causal checks: ordinary text when attention to others is taken away, lone tokens when the mark
// is given to them, and the sinks without the detectors.

#include <algorithm>
#include <cmath>
#include <random>
#include <set>

#include "measure/first_layer/layer_zero.h"
#include "measure/first_layer/causal.h"

namespace sinkref {

namespace {

/// ‖resid_post‖ at every sink, [sink][row in the order of the run].
template <class T>
void keep_sink_norms(const std::vector<SinkLayer>& sinks, std::vector<std::vector<double>>& norms,
                     size_t from_position, Hooks<T>& hooks) {
  norms.assign(sinks.size(), {});
  for (size_t s = 0; s < sinks.size(); ++s)
    hooks.add({HookPoint::ResidPost, sinks[s].layer},
              [&into = norms[s], from_position](const Activation<T>& a) {
                for (size_t r = 0; r < a.rows.size(); ++r) {
                  if (a.rows[r].position < from_position) continue;
                  std::vector<double> x(a.row(r), a.row(r) + a.width);
                  into.push_back(norm(x));
                }
              });
}

double share_above(const std::vector<double>& norms, double threshold) {
  if (norms.empty()) return 0;
  const auto above = std::count_if(norms.begin(), norms.end(),
                                   [&](double n) { return n > threshold; });
  return static_cast<double>(above) / static_cast<double>(norms.size());
}

template <class T>
Blinding blinded(const Model& model, const RunOptions& options, const std::vector<int>& text,
                 const std::vector<SinkLayer>& sinks, std::vector<size_t> layers,
                 std::optional<size_t> head) {
  Hooks<T> hooks;
  std::vector<std::vector<double>> norms;
  for (size_t layer : layers) add_blinding(layer, head, hooks);
  keep_sink_norms(sinks, norms, 1, hooks);
  run<T>(model, without_progress(options), {text}, hooks);
  Blinding result{std::move(layers), head, {}};
  for (size_t s = 0; s < sinks.size(); ++s)
    result.sinks.push_back({sinks[s].layer, median(norms[s]),
                            share_above(norms[s], sinks[s].fires_above())});
  return result;
}

/// As many of the layer's neurons, drawn from the others with a fixed seed.
std::vector<size_t> other_neurons(const std::vector<size_t>& neurons, size_t width) {
  std::mt19937_64 random(20250508);
  std::set<size_t> drawn;
  const size_t count = std::min(neurons.size(), width - std::min(width, neurons.size()));
  while (drawn.size() < count) {
    const size_t neuron = random() % width;
    if (std::find(neurons.begin(), neurons.end(), neuron) == neurons.end()) drawn.insert(neuron);
  }
  return {drawn.begin(), drawn.end()};
}

/// ‖resid_post‖ of the lone token at each sink, with the neurons ablated.
template <class T>
std::vector<double> lone_norms_without(const Model& model, const RunOptions& options,
                                       const FirstLayerInputs& inputs, const Neurons& neurons) {
  Hooks<T> hooks;
  std::vector<std::vector<double>> norms;
  if (!neurons.indices.empty()) add_ablation({neurons}, hooks);
  keep_sink_norms(inputs.sinks, norms, 0, hooks);
  run<T>(model, without_progress(options), {inputs.lone}, hooks);
  std::vector<double> lone;
  for (const std::vector<double>& of_sink : norms) lone.push_back(of_sink.at(0));
  return lone;
}

}  // namespace

const SinkLayer& first_sink(const std::vector<SinkLayer>& sinks) {
  return *std::min_element(sinks.begin(), sinks.end(), [](const SinkLayer& a, const SinkLayer& b) {
    return a.layer < b.layer;
  });
}

template <class T>
std::vector<Blinding> blind(const Model& model, const RunOptions& options,
                            const FirstLayerInputs& inputs) {
  std::vector<Blinding> all;
  if (inputs.sinks.empty() || inputs.text.size() < 2) return all;
  const auto add = [&](const std::vector<SinkLayer>& sinks, std::vector<size_t> layers,
                       std::optional<size_t> head = {}) {
    all.push_back(blinded<T>(model, options, inputs.text, sinks, std::move(layers), head));
  };
  add(inputs.sinks, {});
  size_t last = 0;
  for (const SinkLayer& sink : inputs.sinks) last = std::max(last, sink.layer);
  std::vector<size_t> up_to;
  for (size_t layer = 0; layer <= last; ++layer) {
    up_to.push_back(layer);
    add(inputs.sinks, up_to);
  }
  const SinkLayer& first = first_sink(inputs.sinks);
  for (size_t layer = 1; layer <= first.layer; ++layer) add({first}, {layer});
  for (size_t head = 0; head < model.config().heads; ++head) add({first}, {0}, head);
  return all;
}

template <class T>
std::vector<double> share_of_lone_that_fire(const Model& model, const RunOptions& options,
                                            const FirstLayerInputs& inputs,
                                            const std::vector<double>& mark) {
  std::vector<double> shares;
  if (inputs.sinks.empty()) return shares;
  std::vector<std::vector<int>> lone;
  for (int reader : inputs.readers) lone.push_back({reader});
  Hooks<T> hooks;
  std::vector<std::vector<double>> norms;
  if (!mark.empty()) add_mark(0, mark, hooks);
  keep_sink_norms(inputs.sinks, norms, 0, hooks);
  run<T>(model, without_progress(options), lone, hooks);
  for (size_t s = 0; s < inputs.sinks.size(); ++s)
    shares.push_back(share_above(norms[s], inputs.sinks[s].fires_above()));
  return shares;
}

template <class T>
std::vector<LayerDetectors> detectors_by_layer(const Model& model, const RunOptions& options,
                                               const FirstLayerInputs& inputs,
                                               const std::vector<Detector>& layer_zero) {
  std::vector<LayerDetectors> all;
  const size_t last = inputs.sinks.empty() ? 0 : first_sink(inputs.sinks).layer;
  for (size_t layer = 0; layer <= last; ++layer) {
    const std::vector<Detector> detectors =
        layer == 0 ? layer_zero
                   : find_detectors<T>(model, options, inputs.texts, layer, first_layer_detectors);
    LayerDetectors found{layer, {}, detectors[0].difference, detectors[0].separated, {}, {}};
    for (const Detector& detector : detectors) found.neurons.push_back(detector.neuron);
    if (!inputs.sinks.empty()) {
      found.norm_ablated = lone_norms_without<T>(model, options, inputs, {layer, found.neurons});
      found.norm_control = lone_norms_without<T>(
          model, options, inputs, {layer, other_neurons(found.neurons, model.config().intermediate_size)});
    }
    all.push_back(std::move(found));
  }
  return all;
}

#define SINKREF_CAUSAL(T)                                                                     \
  template std::vector<Blinding> blind<T>(const Model&, const RunOptions&,                    \
                                          const FirstLayerInputs&);                           \
  template std::vector<double> share_of_lone_that_fire<T>(                                    \
      const Model&, const RunOptions&, const FirstLayerInputs&, const std::vector<double>&);  \
  template std::vector<LayerDetectors> detectors_by_layer<T>(                                 \
      const Model&, const RunOptions&, const FirstLayerInputs&,                               \
      const std::vector<Detector>&);
SINKREF_CAUSAL(float)
SINKREF_CAUSAL(double)
#undef SINKREF_CAUSAL

}  // namespace sinkref
