#include "sinkref/sink.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>

#include "measure/observe.h"

namespace sinkref {

std::vector<double> column_norms(const StoredMatrix& w_down) {
  std::vector<double> squares(w_down.cols);
  for (size_t r = 0; r < w_down.rows; ++r) {
    const std::vector<float> row = widen_row(w_down, r);
    for (size_t j = 0; j < row.size(); ++j) squares[j] += double(row[j]) * double(row[j]);
  }
  for (double& square : squares) square = std::sqrt(square);
  return squares;
}

namespace {

/// Both contributions of every neuron, in the order of the neurons.
std::vector<NeuronContribution> contributions(const Model& model, const RunOptions& options,
                                              const std::vector<int>& lone, size_t layer) {
  std::vector<float> post, gate;
  Hooks<float> hooks;
  const auto keep = [](std::vector<float>& into) {
    return [&into](const Activation<float>& a) { into.assign(a.row(0), a.row(0) + a.width); };
  };
  hooks.add({HookPoint::Post, layer}, keep(post));
  hooks.add({HookPoint::Pre, layer}, keep(gate));
  run(model, options, {lone}, hooks);
  const std::vector<double> down = column_norms(model.layer(layer).w_down);
  std::vector<NeuronContribution> all;
  for (size_t j = 0; j < post.size(); ++j)
    all.push_back({j, std::fabs(post[j]) * down[j], std::fabs(gate[j]) * down[j]});
  return all;
}

struct Ablated {
  double mlp = 0, resid = 0;
};

Ablated ablate(const Model& model, const RunOptions& options, const std::vector<int>& lone,
               const Neurons& neurons) {
  std::vector<double> mlp, resid;
  Hooks<float> hooks;
  if (!neurons.indices.empty()) add_ablation({neurons}, hooks);
  keep_norms({HookPoint::MlpOut, neurons.layer}, mlp, hooks);
  keep_norms({HookPoint::ResidPost, neurons.layer}, resid, hooks);
  run(model, options, {lone}, hooks);
  return {mlp[0], resid[0]};
}

/// The largest by `value`, then the fewest of them that collapse the norm when ablated together: add
/// the next strongest until it collapses, then drop every one that is not needed.
Ranking rank(const Model& model, const RunOptions& options, const std::vector<int>& lone,
             std::vector<NeuronContribution> all, double NeuronContribution::* value,
             const SinkLayer& sink) {
  const auto result = [&](const std::vector<size_t>& chosen) {
    return ablate(model, options, lone, {sink.layer, chosen});
  };
  const auto collapses = [&](const std::vector<size_t>& chosen) {
    return result(chosen).mlp < collapsed_below * sink.mlp_first;
  };
  std::sort(all.begin(), all.end(), [&](const auto& a, const auto& b) {
    return a.*value != b.*value ? a.*value > b.*value : a.neuron < b.neuron;
  });
  all.resize(std::min(all.size(), sink_candidates));
  for (NeuronContribution& candidate : all) candidate.norm_ablated = result({candidate.neuron}).resid;
  Ranking ranking{std::move(all), {}, 0, 0};
  std::vector<size_t> chosen;
  for (const NeuronContribution& candidate : ranking.candidates) {
    chosen.push_back(candidate.neuron);
    if (collapses(chosen)) break;
  }
  if (!collapses(chosen)) return ranking;  // many small neurons: no sink neurons in the paper's sense
  for (size_t i = chosen.size(); i-- > 0 && chosen.size() > 1;) {
    std::vector<size_t> fewer = chosen;
    fewer.erase(fewer.begin() + static_cast<long>(i));
    if (collapses(fewer)) chosen = std::move(fewer);
  }
  std::sort(chosen.begin(), chosen.end());
  const Ablated without = result(chosen);
  ranking.mlp_ablated = without.mlp;
  ranking.norm_ablated = without.resid;
  // A late layer may add as much to *remove* the norm: there the residual grows without them.
  if (without.resid < raised_below * sink.norm_first) ranking.neurons = chosen;
  return ranking;
}

/// The paper's rule: mean + 2 standard deviations (unbiased) over the layers.
double paper_threshold(std::span<const double> norms) {
  if (norms.size() < 2) return std::numeric_limits<double>::infinity();
  const double count = static_cast<double>(norms.size());
  double sum = 0, squares = 0;
  for (double n : norms) sum += n;
  for (double n : norms) squares += (n - sum / count) * (n - sum / count);
  return sum / count + 2 * std::sqrt(squares / (count - 1));
}

}  // namespace

double SinkLayer::fires_above() const { return std::sqrt(norm_typical * norm_first); }

size_t first_layer_above(const LayerNorms& norms, double threshold) {
  const auto& all = norms.mlp_first;
  return static_cast<size_t>(
      std::find_if(all.begin(), all.end(), [&](double n) { return n > threshold; }) - all.begin());
}

LayerNorms measure_norms(const Model& model, const RunOptions& options, const SinkInputs& inputs) {
  const size_t layers = model.config().layers;
  const auto norms_of = [&](const std::vector<int>& tokens) {
    AllNorms all;
    Hooks<float> hooks;
    keep_all_norms(layers, all, hooks);
    run(model, options, {tokens}, hooks);
    return all;
  };
  const AllNorms lone = norms_of(inputs.lone), text = norms_of(inputs.text);
  LayerNorms norms;
  for (size_t layer = 0; layer < layers; ++layer) {
    norms.mlp_first.push_back(lone.mlp[layer][0]);
    norms.resid_first.push_back(lone.resid[layer][0]);
    norms.mlp_typical.push_back(mean(text.mlp[layer], 1));
    norms.resid_typical.push_back(mean(text.resid[layer], 1));
  }
  norms.threshold = paper_threshold(norms.mlp_first);
  norms.threshold_notebook = paper_threshold(
      std::span(norms.mlp_first).first(std::min(layers, notebook_layers)));
  return norms;
}

std::vector<SinkLayer> find_sinks(const Model& model, const RunOptions& options,
                                  const SinkInputs& inputs, const LayerNorms& norms) {
  std::vector<SinkLayer> sinks;
  for (size_t layer = 0; layer < norms.mlp_first.size(); ++layer) {
    SinkLayer sink;
    sink.layer = layer;
    sink.by_paper = norms.mlp_first[layer] > norms.threshold;
    sink.mlp_first = norms.mlp_first[layer];
    sink.mlp_typical = norms.mlp_typical[layer];
    sink.norm_first = norms.resid_first[layer];
    sink.norm_typical = norms.resid_typical[layer];
    // Also for a layer above the paper's rule: adding no more than to any token is no sink.
    if (!(sink.mlp_typical > 0 && sink.mlp_first > massive_ratio * sink.mlp_typical)) continue;
    // A layer that marks the first token without raising it above others (a first detector) is none.
    if (!(sink.norm_first * raised_below > sink.norm_typical)) continue;
    const std::vector<NeuronContribution> all = contributions(model, options, inputs.lone, layer);
    Ranking gated = rank(model, options, inputs.lone, all, &NeuronContribution::gated, sink);
    if (gated.neurons.empty()) continue;
    sink.candidates = std::move(gated.candidates);
    sink.neurons = std::move(gated.neurons);
    sink.mlp_ablated = gated.mlp_ablated;
    sink.norm_ablated = gated.norm_ablated;
    sink.by_gate = rank(model, options, inputs.lone, all, &NeuronContribution::gate, sink);
    sinks.push_back(std::move(sink));
  }
  std::stable_sort(sinks.begin(), sinks.end(), [](const SinkLayer& a, const SinkLayer& b) {
    return a.mlp_first / a.mlp_typical > b.mlp_first / b.mlp_typical;
  });
  return sinks;
}

std::vector<size_t> layers_of(const std::vector<SinkLayer>& sinks) {
  std::vector<size_t> layers;
  for (const SinkLayer& sink : sinks) layers.push_back(sink.layer);
  return layers;
}

std::vector<Neurons> neurons_of(const std::vector<SinkLayer>& sinks) {
  std::vector<Neurons> all;
  for (const SinkLayer& sink : sinks) all.push_back({sink.layer, sink.neurons});
  std::sort(all.begin(), all.end(),
            [](const Neurons& a, const Neurons& b) { return a.layer < b.layer; });
  return all;
}

}  // namespace sinkref
