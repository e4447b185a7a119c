#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/progress.h"
#include "measure/observe.h"
#include "sinkref/forward.h"
#include "sinkref/sink.h"

// The cluster attack (Yona et al. 2025): a run of *different* tokens that layer 0 cannot tell apart
// sets the sink off as a run of one token does. Layer 0 sees a key through its value alone, W_o v:
// where the values of a run agree, attention to others changes nothing, and by convexity the change
// is never more than the largest distance between two of them.

namespace sinkref {

struct ClusterInputs {
  std::vector<int> prefix;        ///< what stands before every run
  std::vector<int> tokens;        ///< what runs are made of: ordinary tokens, no BOS
  std::vector<size_t> sizes = {4, 16, 64};  ///< different tokens per run
  size_t length = 400;            ///< tokens of a run
  std::vector<SinkLayer> sinks;   ///< what is to be set off; at least one
  std::vector<Neurons> patch;     ///< the patch to try against it
  uint64_t seed = 20250508;       ///< of candidates, of the orders within runs, of random tokens
};

/// Tokens by closeness to one in layer 0's eyes.
struct Cluster {
  std::vector<int> members;      ///< the nearest first; members[0] is the centre
  std::vector<double> distance;  ///< ‖W_o(v - v_centre)‖ as a fraction of the median over all tokens
};

/// Runs of one kind against one sink.
struct AttackRuns {
  std::string kind;          ///< "identical", "cluster" or "random"
  size_t different = 1;      ///< different tokens in a run
  size_t layer = 0;          ///< the sink's
  size_t runs = 0;
  size_t fired = 0, fired_patched = 0;          ///< runs that succeeded
  double share = 0, share_patched = 0;          ///< mean share of a run's tokens that fire
  double largest = 0, largest_patched = 0;      ///< median over the runs of the largest ‖resid_post‖
};

struct ClusterAttackResult {
  size_t length = 0;
  std::vector<Cluster> clusters;
  std::vector<AttackRuns> attacks;
};

/// Centres are the tightest clusters among so many candidates.
inline constexpr size_t cluster_candidates = 64, cluster_count = 8;
/// A run succeeds if at least this share of its tokens fires the sink (SinkLayer::fires_above()).
inline constexpr double attack_success = 0.01;

/// Attention output in layer 0 of every token of the vocabulary alone, (V, d): W_o v, since the
/// softmax of one score is 1. The bits are a whole run's.
Matrix<float> lone_attention_outputs(const Model& model, const RunOptions& options);

/// The tightest clusters of the largest size asked for (less if there are fewer tokens).
std::vector<Cluster> find_clusters(const Matrix<float>& outputs, const ClusterInputs& inputs);

/// Finds the clusters, and runs every cluster's centre alone, its members at random, and random
/// tokens, with and without the patch. InputError if the runs do not fit the model's positions.
ClusterAttackResult attack_with_clusters(const Model& model, const RunOptions& options,
                                         const ClusterInputs& inputs, Progress& progress);
/// What that is worth (Progress).
double cluster_attack_work(const ModelConfig& config, const ClusterInputs& inputs);

}  // namespace sinkref
