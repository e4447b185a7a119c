#pragma once

#include <string>
#include <vector>

#include "sinkref/forward.h"
#include "sinkref/interventions.h"

// Sink layers and sink neurons (Yona et al. 2025, section 4.2).

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
  double threshold = 0;           ///< mean + 2·std (unbiased) of mlp_first over the layers
  double threshold_notebook = 0;  ///< the same over the first 15 layers, as the paper's notebook
};

/// The first layer whose MLP passes a threshold, or `layers` if none does: the paper's sink layer.
size_t first_layer_above(const LayerNorms& norms, double threshold);

/// ‖post_j · W_down[:, j]‖ of one neuron on the lone first token: its contribution to the residual.
struct NeuronContribution {
  size_t neuron;
  double gated;  ///< with post_j = silu(gate)·up, the paper's text (section 4.2)
  double gate;   ///< with the gate's pre-activation instead, the paper's notebook
  double norm_ablated = 0;  ///< ‖resid_post‖ of the lone token without this neuron alone
};

/// Neurons in the order of one ranking, and the fewest of them whose ablation collapses the norm.
struct Ranking {
  std::vector<NeuronContribution> candidates;  ///< the largest, descending
  std::vector<size_t> neurons;                 ///< empty if no choice collapses it
  double mlp_ablated = 0, norm_ablated = 0;    ///< ‖mlp_out‖, ‖resid_post‖ without `neurons`
};

struct SinkLayer {
  size_t layer = 0;
  bool by_paper = false;  ///< ‖mlp_out‖ above LayerNorms::threshold (the paper's rule)
  std::vector<NeuronContribution> candidates;  ///< the largest by `gated`, descending
  std::vector<size_t> neurons;  ///< the fewest candidates whose ablation collapses ‖mlp_out‖
  double norm_first = 0, norm_typical = 0;  ///< ‖resid_post‖
  double norm_ablated = 0;                  ///< ‖resid_post‖ of the lone token without `neurons`
  double mlp_first = 0, mlp_typical = 0, mlp_ablated = 0;
  Ranking by_gate;  ///< the same by the notebook's ranking; not used further
  /// √(norm_typical · norm_first): a position whose norm passes it is seen as a first token.
  double fires_above() const;
};

/// Candidates kept per layer, and the fraction of ‖mlp_out‖ that counts as collapsed.
inline constexpr size_t sink_candidates = 10;
inline constexpr double collapsed_below = 0.25;
/// A sink raises the residual: without its neurons ‖resid_post‖ is below this fraction, and so is
/// ordinary text's.
inline constexpr double raised_below = 0.5;
/// Besides the paper's rule: a layer whose MLP adds this many times the typical norm is a sink layer
/// too, so that models with several steps (weaker ones first) are seen.
inline constexpr double massive_ratio = 10.0;
/// Layers that the paper's notebook takes its mean and deviation over.
inline constexpr size_t notebook_layers = 15;

/// Norms per layer of the lone token and of the text. Runs every block once per input.
LayerNorms measure_norms(const Model& model, const RunOptions& options, const SinkInputs& inputs);

/// Sink layers with their neurons, each checked by ablation, strongest first (mlp_first /
/// mlp_typical); empty if the model has none.
std::vector<SinkLayer> find_sinks(const Model& model, const RunOptions& options,
                                  const SinkInputs& inputs, const LayerNorms& norms);

/// ‖W_down[:, j]‖ for every neuron j.
std::vector<double> column_norms(const StoredMatrix& w_down);

/// The layers of all sinks, as they stand in the list.
std::vector<size_t> layers_of(const std::vector<SinkLayer>& sinks);

/// The neurons of all sinks in the order of layers: what the patch pins.
std::vector<Neurons> neurons_of(const std::vector<SinkLayer>& sinks);

}  // namespace sinkref
