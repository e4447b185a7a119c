// A run that may set off the sink, under every intervention.

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>

#include "analysis/patch_effect_parts.h"
#include "sinkref/attention_masses.h"
#include "sinkref/error.h"
#include "sinkref/repeats.h"

namespace sinkref {

namespace {

constexpr size_t likeliest = 5;

/// gate, up and post of the patched neurons at chosen positions of one run.
class NeuronWatch {
 public:
  NeuronWatch(const Model& model, const std::vector<Neurons>& neurons,
              std::vector<size_t> positions)
      : positions_(std::move(positions)), values_(positions_.size()) {
    for (const Neurons& layer : neurons) {
      const std::vector<double> down = column_norms(model.layer(layer.layer).w_down);
      for (size_t neuron : layer.indices) {
        down_.push_back(down[neuron]);
        for (std::vector<NeuronValue>& at : values_)
          at.push_back({layer.layer, neuron, 0, 0, 0, 0});
      }
    }
  }

  void attach(Hooks<float>& hooks) {
    const std::vector<NeuronValue>& all = values_[0];
    for (size_t i = 0; i < all.size(); ++i) {
      keep(i, {HookPoint::Pre, all[i].layer}, &NeuronValue::gate, hooks);
      keep(i, {HookPoint::PreLinear, all[i].layer}, &NeuronValue::up, hooks);
      keep(i, {HookPoint::Post, all[i].layer}, &NeuronValue::post, hooks);
    }
  }

  std::vector<NeuronValue> at(size_t which) const {
    std::vector<NeuronValue> values = values_[which];
    for (size_t i = 0; i < values.size(); ++i) values[i].added = std::fabs(values[i].post) * down_[i];
    return values;
  }

 private:
  void keep(size_t i, Hook hook, double NeuronValue::*member, Hooks<float>& hooks) {
    hooks.add(hook, [this, i, member](const Activation<float>& a) {
      for (size_t r = 0; r < a.rows.size(); ++r)
        for (size_t p = 0; p < positions_.size(); ++p)
          if (a.rows[r].position == positions_[p])
            values_[p][i].*member = static_cast<double>(a.row(r)[values_[p][i].neuron]);
    });
  }

  std::vector<size_t> positions_;
  std::vector<double> down_;
  std::vector<std::vector<NeuronValue>> values_;  // [position][neuron]
};

RunNorms along_run(const SinkLayer& sink, const std::vector<double>& norms, size_t begin) {
  RunNorms run{sink.layer, {norms.begin() + static_cast<long>(begin), norms.end()}, 0};
  run.count = repeats_to_fire(sink, run.norms);
  return run;
}

std::vector<TokenProbability> likeliest_tokens(const std::vector<double>& log_p) {
  std::vector<int> order(log_p.size());
  std::iota(order.begin(), order.end(), 0);
  const size_t count = std::min(likeliest, order.size());
  const auto before = [&](int a, int b) {
    const double pa = log_p[static_cast<size_t>(a)], pb = log_p[static_cast<size_t>(b)];
    return pa != pb ? pa > pb : a < b;
  };
  std::partial_sort(order.begin(), order.begin() + static_cast<long>(count), order.end(), before);
  std::vector<TokenProbability> first;
  for (size_t i = 0; i < count; ++i)
    first.push_back({order[i], std::exp(log_p[static_cast<size_t>(order[i])])});
  return first;
}

/// The next token after the run, against `original` (its own for the original).
void describe_next(const std::vector<double>& log_p, const std::vector<double>& original,
                   const std::vector<int>& of_run, RunEffect& effect) {
  effect.next = likeliest_tokens(log_p);
  for (size_t i = 0; i < log_p.size(); ++i) {
    const double p = std::exp(log_p[i]);
    if (p > 0) effect.entropy -= p * log_p[i];
    effect.total_variation += 0.5 * std::fabs(p - std::exp(original[i]));
  }
  effect.kl = divergence(original, log_p);
  for (int token : of_run) effect.run_probability += std::exp(log_p[static_cast<size_t>(token)]);
}

/// The repeat task: does the greedy continuation stay within the run's tokens?
void continue_run(Forward<float>& forward, std::vector<Sequence<float>>& batch, Matrix<float> logits,
                  const std::vector<int>& of_run, Hooks<float>& hooks, RunEffect& effect) {
  const ModelConfig& c = forward.model().config();
  bool staying = true;
  while (effect.continuation.size() < patch_continuation) {
    const int token = static_cast<int>(argmax<float>({logits.row(0), logits.cols}));
    if (std::find(c.eos_ids.begin(), c.eos_ids.end(), token) != c.eos_ids.end()) break;
    staying = staying && std::binary_search(of_run.begin(), of_run.end(), token);
    effect.kept += staying;
    effect.continuation.push_back(token);
    if (batch[0].cache.length == c.max_positions) break;  // the context is full
    batch[0].pending = {token};
    logits = forward.run(batch, hooks, false);
  }
}

}  // namespace

RunEffects measure_run(const Model& model, const RunOptions& options,
                       const PatchEffectInputs& inputs, const PatchEffectInputs::Run& run) {
  if (run.prefix.empty() || run.tokens.empty())
    throw InputError("run \"" + run.name + "\": expected a prefix and a run of at least one token");
  std::vector<int> tokens = run.prefix, of_run = run.tokens;
  tokens.insert(tokens.end(), run.tokens.begin(), run.tokens.end());
  std::sort(of_run.begin(), of_run.end());
  of_run.erase(std::unique(of_run.begin(), of_run.end()), of_run.end());
  RunEffects effects{run.name, run.tokens.size(), {}, {}, {}};
  std::vector<double> original;
  for (const Intervention& intervention : interventions) {
    RunEffect effect;
    Hooks<float> hooks;
    add_intervention(intervention, inputs.neurons, hooks);
    Hooks<float> watched = hooks;
    NeuronWatch neurons(model, inputs.neurons, {0, 1, tokens.size() - 1});
    neurons.attach(watched);
    const std::vector<size_t> layers = layers_of(inputs.sinks);
    std::vector<std::vector<double>> norms(layers.size());
    for (size_t i = 0; i < layers.size(); ++i)
      keep_norms({HookPoint::ResidPost, layers[i]}, norms[i], watched);
    AttentionMasses attention(attention_layers(layers, model.config().layers), run.prefix.size(),
                              model.config().heads, tokens.size());
    attention.attach(watched);
    Forward<float> forward(model, options);
    std::vector<Sequence<float>> batch = {forward.start(tokens)};
    const Matrix<float> logits = forward.run(batch, watched);
    watched.require_all_called();
    for (size_t i = 0; i < layers.size(); ++i)
      effect.sinks.push_back(along_run(inputs.sinks[i], norms[i], run.prefix.size()));
    for (const LayerAttention& layer : attention.layers())
      effect.attention.push_back({layer.layer, layer.on_first.back(), layer.on_body.back()});
    if (original.empty()) {
      effects.first = neurons.at(0);
      effects.second = neurons.at(1);
    }
    effect.neurons = neurons.at(2);
    const std::vector<double> log_p = log_probabilities(logits.row(0), logits.cols);
    if (original.empty()) original = log_p;
    describe_next(log_p, original, of_run, effect);
    continue_run(forward, batch, logits, of_run, hooks, effect);
    effects.effects.push_back(std::move(effect));
  }
  return effects;
}

}  // namespace sinkref
