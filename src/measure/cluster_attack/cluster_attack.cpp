#include "measure/cluster_attack/cluster_attack.h"

#include <algorithm>
#include <cmath>
#include <random>

#include "arithmetic/layers.h"
#include "base/threads.h"
#include "measure/first_layer/first_layer.h"
#include "model/work.h"
#include "sinkref/error.h"

namespace sinkref {

namespace {

constexpr size_t tokens_at_once = 512;
/// One element of a distance, in multiply-adds of a product.
constexpr double cluster_distance_cost = 12;

using Random = std::mt19937_64;
using Runs = std::vector<std::vector<int>>;

double distance(const Matrix<float>& outputs, int a, int b) {
  const float* x = outputs.row(static_cast<size_t>(a));
  const float* y = outputs.row(static_cast<size_t>(b));
  double sum = 0;
  for (size_t i = 0; i < outputs.cols; ++i) {
    const double difference = double(x[i]) - double(y[i]);
    sum += difference * difference;
  }
  return std::sqrt(sum);
}

/// The `size` tokens nearest to the centre; ties by id.
Cluster cluster_of(const Matrix<float>& outputs, const std::vector<int>& tokens, int centre,
                   size_t size) {
  std::vector<std::pair<double, int>> by_distance(tokens.size());
  parallel_for(tokens.size(), [&](size_t i) {
    by_distance[i] = {tokens[i] == centre ? -1 : distance(outputs, tokens[i], centre), tokens[i]};
  });
  std::vector<double> all;
  for (const auto& [far, token] : by_distance) all.push_back(far);
  const double typical = median(all);
  std::partial_sort(by_distance.begin(), by_distance.begin() + static_cast<long>(size),
                    by_distance.end());
  Cluster cluster;
  for (size_t i = 0; i < size; ++i) {
    cluster.members.push_back(by_distance[i].second);
    cluster.distance.push_back(i == 0 ? 0 : by_distance[i].first / typical);
  }
  return cluster;
}

/// `length` tokens of the first `different` members, each used before any comes again, in random
/// order.
std::vector<int> mixed_run(const std::vector<int>& members, size_t different, size_t length,
                           Random& random) {
  std::vector<int> round(members.begin(), members.begin() + static_cast<long>(different)), run;
  while (run.size() < length) {
    for (size_t i = different; i > 1; --i) std::swap(round[i - 1], round[random() % i]);
    run.insert(run.end(), round.begin(),
               round.begin() + static_cast<long>(std::min(different, length - run.size())));
  }
  return run;
}

/// ‖resid_post‖ at each sink of each run's tokens, [sink][run][token].
using Norms = std::vector<std::vector<std::vector<double>>>;

Norms sink_norms(const Model& model, RunOptions options, const ClusterInputs& inputs,
                 const Runs& runs, const std::vector<Neurons>& patch) {
  Norms norms(inputs.sinks.size(), std::vector<std::vector<double>>(runs.size()));
  Hooks<float> hooks;
  add_patch(patch, hooks);
  const size_t before = inputs.prefix.size();
  for (size_t s = 0; s < inputs.sinks.size(); ++s)
    hooks.add({HookPoint::ResidPost, inputs.sinks[s].layer},
              [&into = norms[s], before](const Activation<float>& a) {
                for (size_t r = 0; r < a.rows.size(); ++r) {
                  if (a.rows[r].position < before) continue;
                  into[a.rows[r].sequence].push_back(norm(a.row(r), a.width));
                }
              });
  options.chunk = std::min<size_t>(options.chunk, 64);  // of every run at once
  std::vector<std::vector<int>> batch;
  for (const std::vector<int>& run : runs) {
    std::vector<int>& tokens = batch.emplace_back(inputs.prefix);
    tokens.insert(tokens.end(), run.begin(), run.end());
  }
  run(model, without_progress(options), batch, hooks);
  return norms;
}

struct Outcome {
  size_t fired = 0;
  double share = 0, largest = 0;
};

Outcome outcome_of(const std::vector<std::vector<double>>& runs, double threshold) {
  Outcome outcome;
  std::vector<double> largest;
  for (const std::vector<double>& norms : runs) {
    const auto above = std::count_if(norms.begin(), norms.end(),
                                     [&](double n) { return n > threshold; });
    const double share = static_cast<double>(above) / static_cast<double>(norms.size());
    outcome.fired += share >= attack_success;
    outcome.share += share / static_cast<double>(runs.size());
    largest.push_back(*std::max_element(norms.begin(), norms.end()));
  }
  outcome.largest = median(largest);
  return outcome;
}

/// Layer 0's attention output of every token, and the distances from the candidates.
double clusters_work(const ModelConfig& c) {
  const double d = double(c.hidden_size), q = double(c.heads * c.head_dim), kv = double(c.kv_heads * c.head_dim);
  return double(c.vocab_size) * (d * kv + d * q + double(cluster_candidates) * d * cluster_distance_cost);
}

/// Every run of one kind, once.
double runs_work(const ModelConfig& c, const ClusterInputs& inputs) {
  size_t blocks = 0;
  for (const SinkLayer& sink : inputs.sinks) blocks = std::max(blocks, sink.layer + 1);
  constexpr double short_steps = 2.4;  // times the same rows in long ones
  return short_steps * prefill_work(c, inputs.prefix.size() + inputs.length, cluster_count, 0, blocks);
}

void attack(const Model& model, const RunOptions& options, const ClusterInputs& inputs,
            const std::string& kind, size_t different, const Runs& runs, Progress& progress,
            ClusterAttackResult& result) {
  const double work = runs_work(model.config(), inputs);
  const std::string text = "cluster attack: runs of " + std::to_string(inputs.length) + " tokens";
  progress.step(text, work);
  const Norms original = sink_norms(model, options, inputs, runs, {});
  progress.step(text, work);
  const Norms patched = sink_norms(model, options, inputs, runs, inputs.patch);
  for (size_t s = 0; s < inputs.sinks.size(); ++s) {
    const double threshold = inputs.sinks[s].fires_above();
    const Outcome before = outcome_of(original[s], threshold);
    const Outcome after = outcome_of(patched[s], threshold);
    result.attacks.push_back({kind, different, inputs.sinks[s].layer, runs.size(), before.fired,
                              after.fired, before.share, after.share, before.largest,
                              after.largest});
  }
}

void check(const Model& model, const ClusterInputs& inputs) {
  if (inputs.sinks.empty()) throw InputError("the cluster attack needs a sink, the model has none");
  if (inputs.tokens.size() < 2 || inputs.length == 0 || inputs.sizes.empty())
    throw InputError("the cluster attack needs at least 2 tokens, a length and a cluster size");
  const size_t longest = inputs.prefix.size() + inputs.length, limit = model.config().max_positions;
  if (longest > limit)
    throw InputError("the cluster attack's runs are " + std::to_string(longest) +
                     " tokens long, the model's limit is " + std::to_string(limit) +
                     "; ask for shorter ones");
}

}  // namespace

Matrix<float> lone_attention_outputs(const Model& model, const RunOptions& options) {
  const ModelConfig& c = model.config();
  const LayerWeights& w = model.layer(0);
  const Kernels<float>& kernels = find_kernels<float>(options.kernel);
  Matrix<float> outputs(c.vocab_size, c.hidden_size);
  for (size_t first = 0; first < c.vocab_size; first += tokens_at_once) {
    const size_t count = std::min(tokens_at_once, c.vocab_size - first);
    Matrix<float> x(count, c.hidden_size), normed = x, out = x, scale(count, 1);
    Matrix<float> v(count, w.wv.rows), z(count, w.wo.cols);
    for (size_t t = 0; t < count; ++t) {
      const std::vector<float> row = widen_row(model.embedding(), first + t);
      std::copy(row.begin(), row.end(), x.row(t));
    }
    rmsnorm_scale(x, c.rms_norm_eps, scale);
    rmsnorm_normalize(x, scale, normed);
    multiply_by_weight(normed, w.ln1);
    linear<float>(kernels, normed, {{w.wv, w.bv, v}});
    for (size_t t = 0; t < count; ++t)
      for (size_t head = 0; head < c.heads; ++head)
        std::copy_n(v.row(t) + head / (c.heads / c.kv_heads) * c.head_dim, c.head_dim,
                    z.row(t) + head * c.head_dim);
    linear<float>(kernels, z, {{w.wo, w.bo, out}});
    std::copy(out.values.begin(), out.values.end(), outputs.row(first));
  }
  return outputs;
}

std::vector<Cluster> find_clusters(const Matrix<float>& outputs, const ClusterInputs& inputs) {
  const size_t largest = *std::max_element(inputs.sizes.begin(), inputs.sizes.end());
  const size_t size = std::min(largest, inputs.tokens.size());
  std::vector<int> candidates = inputs.tokens;
  Random random(inputs.seed);
  for (size_t i = 0; i < std::min(cluster_candidates, candidates.size()); ++i)
    std::swap(candidates[i], candidates[i + random() % (candidates.size() - i)]);
  candidates.resize(std::min(cluster_candidates, candidates.size()));
  std::vector<Cluster> clusters;
  for (int centre : candidates)
    clusters.push_back(cluster_of(outputs, inputs.tokens, centre, size));
  std::stable_sort(clusters.begin(), clusters.end(), [](const Cluster& a, const Cluster& b) {
    return a.distance.back() < b.distance.back();
  });
  clusters.resize(std::min(cluster_count, clusters.size()));
  return clusters;
}

double cluster_attack_work(const ModelConfig& config, const ClusterInputs& inputs) {
  return clusters_work(config) + 2 * double(inputs.sizes.size() + 2) * runs_work(config, inputs);
}

ClusterAttackResult attack_with_clusters(const Model& model, const RunOptions& options,
                                         const ClusterInputs& inputs, Progress& progress) {
  check(model, inputs);
  ClusterAttackResult result;
  result.length = inputs.length;
  progress.step("cluster attack: what layer 0 makes of every token of the vocabulary",
                clusters_work(model.config()));
  result.clusters = find_clusters(lone_attention_outputs(model, options), inputs);
  Random random(inputs.seed);
  Runs runs;
  for (const Cluster& cluster : result.clusters)
    runs.emplace_back(inputs.length, cluster.members[0]);
  attack(model, options, inputs, "identical", 1, runs, progress, result);
  size_t different = 0;
  for (size_t size : inputs.sizes) {
    different = std::min(size, result.clusters[0].members.size());
    runs.clear();
    for (const Cluster& cluster : result.clusters)
      runs.push_back(mixed_run(cluster.members, different, inputs.length, random));
    attack(model, options, inputs, "cluster", different, runs, progress, result);
  }
  for (std::vector<int>& run : runs) {
    std::vector<int> drawn = inputs.tokens;
    for (size_t i = 0; i < different; ++i)
      std::swap(drawn[i], drawn[i + random() % (drawn.size() - i)]);
    run = mixed_run(drawn, different, inputs.length, random);
  }
  attack(model, options, inputs, "random", different, runs, progress, result);
  return result;
}

}  // namespace sinkref
