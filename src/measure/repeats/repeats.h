#pragma once

#include <functional>
#include <string>
#include <vector>

#include "base/progress.h"
#include "measure/observe.h"
#include "measure/repeat_task/repeat_task.h"
#include "sinkref/sink.h"

// Norms against the number of repeats (Yona et al. 2025, figure 2). By causality one run
// of prefix + N·token holds every n <= N: the n-th repeat sees the same as in a run of n.

namespace sinkref {

/// One run along the repeats of a word.
struct RepeatRun {
  std::string word;
  int token = 0;
  std::string condition;  ///< what stands before the run: "BOS", "BOS, request", "request", "nothing"
  bool patched = false;
  std::vector<std::vector<double>> norms;  ///< ‖resid_post‖ at the n-th repeat, [layer][n-1]
  std::vector<double> next;                ///< probabilities of the token after the run, [V]
  std::vector<Continuation> continuations; ///< where the repeat task was asked for
};

/// What a run is watched for, besides the norms of every layer.
struct RunPlan {
  using Watch = std::function<void(Hooks<float>&)>;
  std::string condition;
  std::vector<Neurons> patch;
  Watch watch;  ///< adds hooks to the run of the first word
  bool continuations = false;
};

/// What the run of one word is worth (Progress).
double run_work(const ModelConfig& config, size_t prefix, size_t repeats, bool continuations);

/// The runs of several words; their repeat tasks go on together as far as the memory reaches.
std::vector<RepeatRun> run_words(const Model& model, const RunOptions& options,
                                 const std::vector<SinkInputs::Word>& words, size_t repeats,
                                 const RunPlan& plan, Progress& progress);
RepeatRun run_repeats(const Model& model, const RunOptions& options, const SinkInputs::Word& word,
                      size_t repeats, const RunPlan& plan);

/// The first n, from 1, with norms[n - 1] > sink.fires_above(); 0 if none.
size_t repeats_to_fire(const SinkLayer& sink, const std::vector<double>& norms);

/// The first n at which one sink layer takes the run for a first token.
struct RepeatsNeeded {
  size_t layer = 0;
  size_t count = 0;    ///< first n with norm > √(norm_typical · norm_first); 0 if none
  size_t reached = 0;  ///< first n with norm >= 9/10 norm_first; 0 if none
  double norm_last = 0, norm_largest = 0;
};
std::vector<RepeatsNeeded> repeats_needed(const RepeatRun& run, const std::vector<SinkLayer>& sinks);

/// The next token after the whole run, original and patched.
struct NextToken {
  std::string word;
  int token = 0;
  int original = 0, patched = 0;
  double original_probability = 0, patched_probability = 0;
  double total_variation = 0;  ///< ½ Σ |p - q| over the vocabulary
};
NextToken compare_next(const RepeatRun& original, const RepeatRun& patched);

}  // namespace sinkref
