// A run that may set off the sink, under every intervention.

#include <algorithm>
#include <cmath>
#include <deque>
#include <numeric>

#include "measure/patch_effect/parts.h"
#include "measure/attention/attention_masses.h"
#include "sinkref/error.h"
#include "measure/repeats/repeats.h"

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
void keep_continuation(std::vector<int> continuation, const std::vector<int>& of_run, RunEffect& effect) {
  const auto other = std::find_if(continuation.begin(), continuation.end(), [&](int token) {
    return !std::binary_search(of_run.begin(), of_run.end(), token);
  });
  effect.kept = static_cast<size_t>(other - continuation.begin());
  effect.continuation = std::move(continuation);
}

/// One intervention on the run, and what is watched of it.
class Watched {
 public:
  Watched(const Model& model, const PatchEffectInputs& inputs, const Intervention& intervention,
          size_t prefix, size_t length)
      : inputs_(inputs),
        prefix_(prefix),
        layers_(layers_of(inputs.sinks)),
        norms_(layers_.size()),
        neurons_(model, inputs.neurons, {0, 1, length - 1}),
        attention_(attention_masses(attention_layers(layers_, model.config().layers), prefix,
                                    model.config().heads, length)) {
    add_intervention(intervention, inputs.neurons, pinned);
  }

  /// Neurons and norms at every token. Attention is wanted of the last one only: where it is
  /// watched, tiles wait for one another.
  void attach(bool last, Hooks<float>& hooks) {
    neurons_.attach(hooks);
    for (size_t i = 0; i < layers_.size(); ++i)
      keep_norms({HookPoint::ResidPost, layers_[i]}, norms_[i], hooks);
    if (last) attention_.attach(hooks);
  }

  RunEffect effect() const {
    RunEffect effect;
    for (size_t i = 0; i < layers_.size(); ++i) {
      RunNorms run{layers_[i], {norms_[i].begin() + static_cast<long>(prefix_), norms_[i].end()}, 0};
      run.count = repeats_to_fire(inputs_.sinks[i], run.norms);
      effect.sinks.push_back(std::move(run));
    }
    for (const LayerAttention& layer : attention_.layers)
      effect.attention.push_back({layer.layer, layer.on_first.back(), layer.on_body.back()});
    effect.neurons = neurons_.at(2);
    return effect;
  }

  const NeuronWatch& neurons() const { return neurons_; }

  Hooks<float> pinned;

 private:
  const PatchEffectInputs& inputs_;
  size_t prefix_;
  std::vector<size_t> layers_;
  std::vector<std::vector<double>> norms_;
  NeuronWatch neurons_;
  AttentionMasses attention_;
};

/// Interventions first … end-1, as one batch. `of_run`: the run's tokens, ascending.
void measure_together(const Model& model, const RunOptions& options, const PatchEffectInputs& inputs,
                      const std::vector<int>& tokens, size_t prefix, const std::vector<int>& of_run,
                      size_t first, size_t end, std::vector<double>& original, RunEffects& effects) {
  RunOptions run = options;
  run.chunk = std::max<size_t>(1, options.chunk / (end - first));
  Forward<float> forward(model, run);
  Forward<float> all_but_last(model, run, {0, SIZE_MAX, LogitRows::none});
  const size_t limit = model.config().max_positions;
  std::deque<Watched> watched;
  std::vector<Sequence<float>> batch;
  Hooks<float> along, at_last, pinned;
  for (size_t i = first; i < end; ++i) {
    Watched& w = watched.emplace_back(model, inputs, interventions[i], prefix, tokens.size());
    Hooks<float> own = w.pinned, own_last = w.pinned;
    w.attach(false, own);
    w.attach(true, own_last);
    along.add_for(i - first, own);
    at_last.add_for(i - first, own_last);
    pinned.add_for(i - first, w.pinned);
    batch.push_back(forward.start(tokens));
    batch.back().cache.reserve(std::min(tokens.size() + patch_continuation, limit));
    batch.back().pending.pop_back();
  }
  all_but_last.run(batch, along);
  for (Sequence<float>& sequence : batch) sequence.pending = {tokens.back()};
  const Matrix<float> logits = forward.run(batch, at_last);
  at_last.require_all_called();
  std::vector<Greedy> greedy =
      continue_greedily(forward, batch, logits, patch_continuation, pinned);
  for (size_t b = 0; b < batch.size(); ++b) {
    RunEffect effect = watched[b].effect();
    const std::vector<double> log_p = log_probabilities(logits.row(b), logits.cols);
    if (original.empty()) {
      original = log_p;
      effects.first = watched[b].neurons().at(0);
      effects.second = watched[b].neurons().at(1);
    }
    describe_next(log_p, original, of_run, effect);
    keep_continuation(std::move(greedy[b].tokens), of_run, effect);
    effects.effects.push_back(std::move(effect));
  }
}

}  // namespace

RunEffects measure_run(const Model& model, const RunOptions& options,
                       const PatchEffectInputs& inputs, const PatchEffectInputs::Run& run,
                       Progress& progress) {
  if (run.prefix.empty() || run.tokens.empty())
    throw InputError("run \"" + run.name + "\": expected a prefix and a run of at least one token");
  std::vector<int> tokens = run.prefix, of_run = run.tokens;
  tokens.insert(tokens.end(), run.tokens.begin(), run.tokens.end());
  std::sort(of_run.begin(), of_run.end());
  of_run.erase(std::unique(of_run.begin(), of_run.end()), of_run.end());
  RunEffects effects{run.name, run.tokens.size(), {}, {}, {}};
  std::vector<double> original;
  const size_t together = caches_at_once(model.config(), tokens.size());
  RunOptions watched = options;
  watched.progress = [&](size_t done, size_t all) { progress.share(double(done) / double(all)); };
  for (size_t first = 0; first < intervention_count; first += together)
    measure_together(model, watched, inputs, tokens, run.prefix.size(), of_run, first,
                     std::min(first + together, intervention_count), original, effects);
  return effects;
}

}  // namespace sinkref
