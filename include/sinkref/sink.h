#pragma once

#include <functional>
#include <string>
#include <vector>

#include "sinkref/forward.h"
#include "sinkref/patch.h"

namespace sinkref {

/// What the analyses are made on. Token ids, so that a model without a tokenizer works too.
struct SinkInputs {
  std::vector<int> lone;  ///< one token, as the first of a sequence: BOS, or an ordinary token
  std::vector<int> text;  ///< ordinary text, with BOS if the model wants one
  struct Word {
    std::string text;
    std::vector<int> prefix;  ///< what stands before the run (BOS, or BOS and an ordinary prompt)
    int token;                ///< what is repeated
  };
  std::vector<Word> words;
  size_t repeats = 0;
};

/// Per layer: the norm of what the MLP adds and of the residual after it, for the lone first token
/// and (mean over positions >= 1) for ordinary text.
struct LayerNorms {
  std::vector<double> mlp_first, mlp_typical, resid_first, resid_typical;
  double threshold = 0;  ///< mean + 2·std (unbiased) of mlp_first over the layers
};

/// ‖post_j · W_down[:, j]‖ of one neuron on the lone first token: its contribution to the residual.
struct NeuronContribution {
  size_t neuron;
  double gated;  ///< with post_j = silu(gate)·up, the paper's text (section 4.2)
  double gate;   ///< with the gate's pre-activation instead, the paper's notebook
};

struct SinkLayer {
  size_t layer = 0;
  bool by_paper = false;  ///< ‖mlp_out‖ above LayerNorms::threshold (the paper's rule)
  std::vector<NeuronContribution> candidates;  ///< the largest by `gated`, descending
  std::vector<size_t> neurons;  ///< the fewest candidates whose ablation collapses ‖mlp_out‖
  double norm_first = 0, norm_typical = 0;  ///< ‖resid_post‖
  double norm_ablated = 0;                  ///< ‖resid_post‖ of the lone token without `neurons`
  double mlp_first = 0, mlp_typical = 0, mlp_ablated = 0;
};

/// Norms along prefix + n·token: by causality one run gives every n at once.
struct RepeatCurve {
  std::string word;
  int token = 0;
  size_t layer = 0;
  std::vector<double> norms;          ///< ‖resid_post‖ at the n-th repeat, n = 1 …
  std::vector<double> norms_patched;
  /// The first n whose norm passes the geometric mean of norm_typical and norm_first; 0 if none.
  size_t count = 0, count_patched = 0;
};

/// The next token after the whole run, original and patched.
struct NextToken {
  std::string word;
  int token = 0;
  int original = 0, patched = 0;
  double original_probability = 0, patched_probability = 0;
  double total_variation = 0;  ///< ½ Σ |p - q| over the vocabulary
};

struct SinkReport {
  LayerNorms norms;
  std::vector<SinkLayer> sinks;  ///< strongest first: by mlp_first / mlp_typical
  std::vector<RepeatCurve> curves;
  std::vector<NextToken> next;
  std::vector<Neurons> patched;  ///< the neurons of all sinks, by layer
};

/// Candidates kept per layer, and the fraction of ‖mlp_out‖ that counts as collapsed.
inline constexpr size_t sink_candidates = 10;
inline constexpr double collapsed_below = 0.25;
/// A sink raises the residual: without its neurons ‖resid_post‖ is below this fraction.
inline constexpr double raised_below = 0.5;
/// Besides the paper's rule: a layer whose MLP adds this many times the typical norm is a sink layer
/// too, so that models with several steps (weaker ones first) are seen.
inline constexpr double massive_ratio = 10.0;

/// Norms per layer of the lone token and of the text. Runs every block once per input.
LayerNorms measure_norms(const Model& model, const RunOptions& options, const SinkInputs& inputs);

/// Sink layers with their neurons, each checked by ablation; empty if the model has none.
std::vector<SinkLayer> find_sinks(const Model& model, const RunOptions& options,
                                  const SinkInputs& inputs, const LayerNorms& norms);

/// Everything: `step` is told what is being done.
SinkReport analyse_sinks(const Model& model, const RunOptions& options, const SinkInputs& inputs,
                         const std::function<void(const std::string&)>& step);

}  // namespace sinkref
