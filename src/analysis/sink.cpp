#include "sinkref/sink.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace sinkref {

namespace {

double norm(const float* values, size_t n) {
  double sum = 0;
  for (size_t i = 0; i < n; ++i) sum += double(values[i]) * double(values[i]);
  return std::sqrt(sum);
}

/// Adds a hook that keeps the norm of every row, by position.
void keep_norms(Hook hook, std::vector<double>& norms, Hooks<float>& hooks) {
  hooks.add(hook, [&norms](const Activation<float>& a) {
    for (size_t r = 0; r < a.rows.size(); ++r) {
      if (norms.size() <= a.rows[r].position) norms.resize(a.rows[r].position + 1);
      norms[a.rows[r].position] = norm(a.row(r), a.width);
    }
  });
}

void run_once(const Model& model, RunOptions options, std::vector<int> tokens, Hooks<float>& hooks) {
  options.depth = hooks.depth();
  options.logits = LogitRows::none;
  options.progress = nullptr;
  Forward<float> forward(model, options);
  std::vector<Sequence<float>> batch;
  batch.push_back(forward.start(std::move(tokens)));
  forward.run(batch, hooks);
}

double mean(const std::vector<double>& values, size_t from) {
  if (values.size() <= from) return 0;
  return std::accumulate(values.begin() + static_cast<long>(from), values.end(), 0.0) /
         static_cast<double>(values.size() - from);
}

/// ‖mlp_out‖ and ‖resid_post‖ of every layer and position.
struct AllNorms {
  std::vector<std::vector<double>> mlp, resid;

  AllNorms(const Model& model, const RunOptions& options, const std::vector<int>& tokens)
      : mlp(model.config().layers), resid(model.config().layers) {
    Hooks<float> hooks;
    for (size_t layer = 0; layer < mlp.size(); ++layer) {
      keep_norms({HookPoint::MlpOut, layer}, mlp[layer], hooks);
      keep_norms({HookPoint::ResidPost, layer}, resid[layer], hooks);
    }
    run_once(model, options, tokens, hooks);
  }
};

/// ‖W_down[:, j]‖ for every neuron j.
std::vector<double> column_norms(const StoredMatrix& w_down) {
  std::vector<double> squares(w_down.cols);
  for (size_t r = 0; r < w_down.rows; ++r) {
    const std::vector<float> row = widen_row(w_down, r);
    for (size_t j = 0; j < row.size(); ++j) squares[j] += double(row[j]) * double(row[j]);
  }
  for (double& square : squares) square = std::sqrt(square);
  return squares;
}

std::vector<NeuronContribution> contributions(const Model& model, const RunOptions& options,
                                              const std::vector<int>& lone, size_t layer) {
  std::vector<float> post, gate;
  Hooks<float> hooks;
  const auto keep = [](std::vector<float>& into) {
    return [&into](const Activation<float>& a) { into.assign(a.row(0), a.row(0) + a.width); };
  };
  hooks.add({HookPoint::Post, layer}, keep(post));
  hooks.add({HookPoint::Pre, layer}, keep(gate));
  run_once(model, options, lone, hooks);
  const std::vector<double> down = column_norms(model.layer(layer).w_down);
  std::vector<NeuronContribution> all;
  for (size_t j = 0; j < post.size(); ++j)
    all.push_back({j, std::fabs(post[j]) * down[j], std::fabs(gate[j]) * down[j]});
  std::sort(all.begin(), all.end(), [](const NeuronContribution& a, const NeuronContribution& b) {
    return a.gated != b.gated ? a.gated > b.gated : a.neuron < b.neuron;
  });
  all.resize(std::min(all.size(), sink_candidates));
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
  run_once(model, options, lone, hooks);
  return {mlp[0], resid[0]};
}

/// The fewest candidates that collapse the norm when ablated together: add the next strongest until
/// it collapses, then drop every one that is not needed.
void choose_neurons(const Model& model, const RunOptions& options, const std::vector<int>& lone,
                    SinkLayer& sink) {
  const auto result = [&](const std::vector<size_t>& chosen) {
    return ablate(model, options, lone, {sink.layer, chosen});
  };
  const auto collapses = [&](const std::vector<size_t>& chosen) {
    return result(chosen).mlp < collapsed_below * sink.mlp_first;
  };
  std::vector<size_t> chosen;
  for (const NeuronContribution& candidate : sink.candidates) {
    chosen.push_back(candidate.neuron);
    if (collapses(chosen)) break;
  }
  if (!collapses(chosen)) return;  // many small neurons: no sink neurons in the paper's sense
  for (size_t i = chosen.size(); i-- > 0 && chosen.size() > 1;) {
    std::vector<size_t> fewer = chosen;
    fewer.erase(fewer.begin() + static_cast<long>(i));
    if (collapses(fewer)) chosen = fewer;
  }
  std::sort(chosen.begin(), chosen.end());
  const Ablated without = result(chosen);
  sink.mlp_ablated = without.mlp;
  sink.norm_ablated = without.resid;
  // A late layer may add as much to *remove* the norm: there the residual grows without them.
  if (without.resid < raised_below * sink.norm_first) sink.neurons = chosen;
}

/// The paper's rule: mean + 2 standard deviations (unbiased) over the layers.
double paper_threshold(const std::vector<double>& norms) {
  if (norms.size() < 2) return std::numeric_limits<double>::infinity();
  const double average = mean(norms, 0);
  double squares = 0;
  for (double n : norms) squares += (n - average) * (n - average);
  return average + 2 * std::sqrt(squares / static_cast<double>(norms.size() - 1));
}

size_t first_above(const std::vector<double>& norms, double threshold) {
  for (size_t i = 0; i < norms.size(); ++i)
    if (norms[i] > threshold) return i + 1;
  return 0;
}

/// Softmax of logits in double, for probabilities that are only reported.
std::vector<double> probabilities(const float* logits, size_t n) {
  const double largest = logits[argmax<float>({logits, n})];
  std::vector<double> p(n);
  double sum = 0;
  for (size_t i = 0; i < n; ++i) sum += p[i] = std::exp(logits[i] - largest);
  for (double& value : p) value /= sum;
  return p;
}

/// One run along the repeats: norms at the sink layers and, at the end, the next token.
std::vector<double> run_repeats(const Model& model, RunOptions options,
                                const SinkInputs::Word& word, size_t repeats,
                                const std::vector<Neurons>& patch,
                                std::vector<std::vector<double>*> norms,
                                const std::vector<size_t>& layers) {
  std::vector<int> tokens = word.prefix;
  tokens.insert(tokens.end(), repeats, word.token);
  options.logits = LogitRows::last;
  Forward<float> forward(model, options);
  Hooks<float> hooks;
  add_patch(patch, hooks);
  for (size_t i = 0; i < layers.size(); ++i)
    keep_norms({HookPoint::ResidPost, layers[i]}, *norms[i], hooks);
  std::vector<Sequence<float>> batch;
  batch.push_back(forward.start(std::move(tokens)));
  const Matrix<float> logits = forward.run(batch, hooks);
  for (std::vector<double>* all : norms)
    *all = std::vector<double>(all->end() - static_cast<long>(repeats), all->end());
  return probabilities(logits.row(0), logits.cols);
}

void follow_word(const Model& model, const RunOptions& options, const SinkInputs& inputs,
                 const SinkInputs::Word& word, SinkReport& report) {
  std::vector<size_t> layers;
  std::vector<RepeatCurve> curves;
  for (const SinkLayer& sink : report.sinks) {
    layers.push_back(sink.layer);
    curves.push_back({word.text, word.token, sink.layer, {}, {}, 0, 0});
  }
  std::vector<std::vector<double>*> original, patched;
  for (RepeatCurve& curve : curves) {
    original.push_back(&curve.norms);
    patched.push_back(&curve.norms_patched);
  }
  const std::vector<double> p =
      run_repeats(model, options, word, inputs.repeats, {}, original, layers);
  const std::vector<double> q =
      run_repeats(model, options, word, inputs.repeats, report.patched, patched, layers);
  for (size_t i = 0; i < curves.size(); ++i) {
    const SinkLayer& sink = report.sinks[i];
    const double threshold = std::sqrt(sink.norm_typical * sink.norm_first);
    curves[i].count = first_above(curves[i].norms, threshold);
    curves[i].count_patched = first_above(curves[i].norms_patched, threshold);
    report.curves.push_back(curves[i]);
  }
  NextToken next{word.text, word.token, 0, 0, 0, 0, 0};
  next.original = static_cast<int>(argmax<double>(p));
  next.patched = static_cast<int>(argmax<double>(q));
  next.original_probability = p[static_cast<size_t>(next.original)];
  next.patched_probability = q[static_cast<size_t>(next.patched)];
  for (size_t i = 0; i < p.size(); ++i) next.total_variation += 0.5 * std::fabs(p[i] - q[i]);
  report.next.push_back(next);
}

}  // namespace

LayerNorms measure_norms(const Model& model, const RunOptions& options, const SinkInputs& inputs) {
  const AllNorms lone(model, options, inputs.lone), text(model, options, inputs.text);
  LayerNorms norms;
  for (size_t layer = 0; layer < model.config().layers; ++layer) {
    norms.mlp_first.push_back(lone.mlp[layer][0]);
    norms.resid_first.push_back(lone.resid[layer][0]);
    norms.mlp_typical.push_back(mean(text.mlp[layer], 1));
    norms.resid_typical.push_back(mean(text.resid[layer], 1));
  }
  norms.threshold = paper_threshold(norms.mlp_first);
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
    if (!(sink.mlp_first > massive_ratio * sink.mlp_typical)) continue;
    sink.candidates = contributions(model, options, inputs.lone, layer);
    choose_neurons(model, options, inputs.lone, sink);
    if (!sink.neurons.empty()) sinks.push_back(std::move(sink));
  }
  std::stable_sort(sinks.begin(), sinks.end(), [](const SinkLayer& a, const SinkLayer& b) {
    return a.mlp_first / a.mlp_typical > b.mlp_first / b.mlp_typical;
  });
  return sinks;
}

SinkReport analyse_sinks(const Model& model, const RunOptions& options, const SinkInputs& inputs,
                         const std::function<void(const std::string&)>& step) {
  SinkReport report;
  step("norms of the first token and of ordinary text, every layer");
  report.norms = measure_norms(model, options, inputs);
  step("sink layers and neurons, by ablation");
  report.sinks = find_sinks(model, options, inputs, report.norms);
  for (const SinkLayer& sink : report.sinks) report.patched.push_back({sink.layer, sink.neurons});
  std::sort(report.patched.begin(), report.patched.end(),
            [](const Neurons& a, const Neurons& b) { return a.layer < b.layer; });
  if (report.sinks.empty()) return report;
  for (const SinkInputs::Word& word : inputs.words) {
    step(std::to_string(inputs.repeats) + " repeats of \"" + word.text + "\", original and patched");
    follow_word(model, options, inputs, word, report);
  }
  return report;
}

}  // namespace sinkref
