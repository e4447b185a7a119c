#pragma once

#include <array>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/progress.h"
#include "measure/observe.h"
#include "sinkref/forward.h"
#include "sinkref/sink.h"

// Why is a position that sees only itself recognised? (Yona et al. 2025, sections 4.3 and 5.) In
// layer 0 a key's value depends on its token alone, so attention to the query's own token gives
// what a lone token gets, and everything else comes from *other* tokens:
//     z_q = Σ_same A_k v_q + Σ_other A_k v_k.
// All accounts split there: "same" is the query's own token (itself and its repeats), "other" the
// rest. Sums of parts are formed in double from what the forward pass computed in T.

namespace sinkref {

/// What the analysis runs on. Token ids, so that a model without a tokenizer works too.
struct FirstLayerInputs {
  std::vector<std::vector<int>> texts;   ///< three tokens each, no BOS: the three-word texts
  std::vector<int> readers, others;      ///< disjoint: every pair "other reader" is run
  std::vector<SinkInputs::Word> words;   ///< prefix + repeats of one token
  size_t repeats = 0;
  std::vector<int> text, lone;           ///< ordinary text and a lone first token: causal checks
  std::vector<SinkLayer> sinks;          ///< what the causal checks look at; may be empty
};

/// Inputs from a list of ordinary tokens (no BOS among them): 1,000 texts of three different ones,
/// and up to 32 readers and 32 others, are drawn with a fixed seed; the rest is taken from `inputs`.
/// InputError if there are fewer than 4 different tokens.
FirstLayerInputs first_layer_inputs(const std::vector<int>& ordinary, const SinkInputs& inputs,
                                    std::vector<SinkLayer> sinks);

/// One gate pre-activation of layer 0's MLP as a sum. Given ln2's scale it is linear in
///     resid_mid = embed + Σ_heads W_o,h z_h + b_o,
///     pre_j = Σ_i W_gate[j,i] · w_i · resid_mid_i / scale + b_gate,j.
struct PreAccount {
  double embed = 0, bias = 0;       ///< bias: b_o's share and b_gate
  std::vector<double> same, other;  ///< per head [H]
  double sum() const;
  double scale = 0;      ///< ln2's: a token that lost its content is scaled up by it
  double whole = 0;      ///< mlp.hook_pre as the forward pass computed it
  double bound = 0;      ///< |sum - whole| <= bound: rounding of T along the way (see the source)
  double magnitude = 0;  ///< Σ of the absolute values of all terms, what errors are relative to
};

/// How well all the sums of an analysis close.
struct Closure {
  size_t sums = 0;
  double worst_of_bound = 0;  ///< max |sum - whole| / bound; <= 1 or the account is wrong
  double worst_relative = 0;  ///< max |sum - whole| / magnitude
  void add(double error, double bound, double magnitude);
  void add(const PreAccount& account);
  void add(const Closure& other);
};

/// Counts of pre-activations over the texts, for positions 0, 1, 2, in bins of equal width.
struct PositionHistogram {
  double first_edge = 0, bin_width = 0;
  std::array<std::vector<size_t>, 3> counts;
};

/// A neuron of layer 0's MLP that answers to "sees only itself": largest mean over the texts of
/// (Q0 - Q1)·W_gate, Q the ln2 output with its weight (the paper's notebook).
struct Detector {
  size_t neuron = 0;
  double difference = 0;                    ///< that mean
  std::array<double, 3> mean{}, deviation{};  ///< of the pre-activation, at positions 0, 1, 2
  double separated = 0;  ///< share of the texts whose position 0 is above positions 1 and 2
  std::array<PreAccount, 3> account;        ///< means over the texts: they add up as well
  PositionHistogram histogram;
};

/// One head at positions 0, 1, 2 of the texts, means: attention and what it adds to the residual.
struct HeadByPosition {
  std::array<double, 3> same{}, other{};              ///< attention, which sums to 1
  std::array<double, 3> same_norm{}, other_norm{};    ///< ‖W_o,h Σ A_k v_k‖ over those keys
};

/// Shares of a mean square that sum to 1 (two-way analysis of variance over all pairs).
struct Shares {
  double mark = 0;     ///< the same for every reader and every other token: "there is another"
  double reader = 0;   ///< depends on who looks (the loss of the reader's own value)
  double other = 0;    ///< depends on which token is seen
  double both = 0;     ///< on the pair
};

/// "Detect other tokens": the change of a head's output when the reader, which saw only itself,
/// sees one other token, over all pairs of readers and others.
struct OtherTokenShift {
  double attention = 0;  ///< mean attention to the other token
  double size = 0;       ///< root mean square of the change
  double mark = 0;       ///< size of its mean over all pairs (signed where the change is a number)
  Shares shares;
};

struct OtherTokenDetection {
  std::vector<OtherTokenShift> heads;                   ///< ‖change of W_o,h z_h‖ [H]
  OtherTokenShift attention;                            ///< of the whole attention output
  std::vector<std::vector<OtherTokenShift>> detectors;  ///< of head h's part of pre_j [detector][H]
  std::vector<OtherTokenShift> detector_totals;  ///< of pre_j itself, ln2's scale included [detector]
  std::vector<double> mark;  ///< the mean change of attn_out over all pairs [d]
};

/// A detector along a run, at the n-th repeat.
struct RunAccount {
  size_t repeat;
  PreAccount account;
};

/// "prefix + n repeats" against the lone token, in layer 0, n = 1 … repeats. All distances are to
/// the lone token at position 0, norms of differences.
struct Convergence {
  std::string word;
  int token = 0;
  std::vector<double> attention_distance;  ///< attn_out
  std::vector<double> layer_distance;      ///< resid_post of layer 0 (the notebook's figure)
  double lone_norm = 0;                    ///< ‖resid_post‖ of the lone token
  std::vector<double> other_attention;     ///< attention to the prefix, mean over heads
  /// Theorem 4.1's bound from the measured attention: Σ_h p_h · max over the prefix ‖W_o,h(v_k - v)‖.
  std::vector<double> bound;
  /// Its rate if no score depended on distance: the odds of the prefix fall as 1/n from the first
  /// repeat's, and the distance with them.
  std::vector<double> rate;
  /// At chosen n: the distance formed from attention and values, Σ_h W_o,h Σ_other A_k (v_k - v).
  struct Predicted {
    size_t repeat;
    double distance;
  };
  std::vector<Predicted> predicted;
  /// Slopes of ln distance, ln attention and ln rate against ln n over the last nine tenths.
  double slope_distance = 0, slope_attention = 0, slope_rate = 0;
  std::vector<std::vector<RunAccount>> detectors;  ///< [detector][chosen n]
  std::vector<RunAccount> lone;                    ///< [detector], repeat 0
};

/// Ordinary text when chosen attention is blinded (every token sees only itself), per sink.
struct Blinding {
  std::vector<size_t> layers;
  std::optional<size_t> head;  ///< all heads if empty
  struct Sink {
    size_t layer;
    double median_norm;  ///< ‖resid_post‖ over positions >= 1
    double fires;        ///< share of them above SinkLayer::fires_above()
  };
  std::vector<Sink> sinks;
};

/// The first detector of each layer up to the first sink, by the same rule, and what the sink makes
/// of the lone token without that layer's detectors.
struct LayerDetectors {
  size_t layer;
  std::vector<size_t> neurons;  ///< the strongest first
  double difference, separated; ///< of the strongest
  std::vector<double> norm_ablated;  ///< ‖resid_post‖ of the lone token at each sink
  std::vector<double> norm_control;  ///< the same without as many other neurons, drawn at random
};

/// A statement of the paper's account, and whether this model follows it. One that is tried on several
/// words is several claims `about` the same, and is counted as one.
struct Claim {
  std::string statement;
  double measured, threshold;
  bool at_least;         ///< holds if measured >= threshold; otherwise if measured <= threshold
  std::string about;     ///< a stable slug
  bool causal;           ///< something was changed to see what follows; otherwise only looked at
  std::string word;      ///< tried on, or empty
  std::string control;   ///< what `control_measured` is; empty if there is none
  double control_measured;
  bool holds() const { return at_least ? measured >= threshold : measured <= threshold; }
};

struct FirstLayerResult {
  std::string precision;
  std::vector<Detector> detectors;    ///< strongest first
  std::vector<HeadByPosition> heads;  ///< [H]
  OtherTokenDetection detection;
  std::vector<Convergence> runs;
  std::vector<Blinding> blinding;
  /// Lone tokens whose layer-0 attention output is given the mark: share that still fire, per sink.
  std::vector<double> fires_lone, fires_marked;
  std::vector<LayerDetectors> by_layer;
  std::vector<Claim> claims;
  Closure closure;
};

inline constexpr size_t first_layer_detectors = 10;

/// The sink of the lowest layer, the one that layer 0 acts on first. There must be one.
const SinkLayer& first_sink(const std::vector<SinkLayer>& sinks);

/// Layer 0's (or another layer's) strongest detectors over the texts; only neuron, difference,
/// mean, deviation, separated and histogram are filled.
template <class T>
std::vector<Detector> find_detectors(const Model& model, const RunOptions& options,
                                     const std::vector<std::vector<int>>& texts, size_t layer,
                                     size_t count);

/// Fills the detectors' accounts at positions 0, 1, 2 and the heads'.
template <class T>
std::vector<HeadByPosition> account_by_position(const Model& model, const RunOptions& options,
                                                const std::vector<std::vector<int>>& texts,
                                                std::vector<Detector>& detectors, Closure& closure);

template <class T>
OtherTokenDetection detect_other_tokens(const Model& model, const RunOptions& options,
                                        const FirstLayerInputs& inputs,
                                        const std::vector<Detector>& detectors);

template <class T>
Convergence follow_run(const Model& model, const RunOptions& options, const SinkInputs::Word& word,
                       size_t repeats, const std::vector<Detector>& detectors, Closure& closure);

/// Layers 0 … k blinded for each k up to the last sink; and, for the first sink only, each layer up
/// to it alone and each head of layer 0 alone.
template <class T>
std::vector<Blinding> blind(const Model& model, const RunOptions& options,
                            const FirstLayerInputs& inputs);

/// All of it, and what it is worth.
template <class T>
FirstLayerResult analyse_first_layer(const Model& model, const RunOptions& options,
                                     const FirstLayerInputs& inputs, Progress& progress);
double first_layer_work(const ModelConfig& config, const FirstLayerInputs& inputs);

nlohmann::ordered_json to_json(const FirstLayerResult& report);
/// What it was made on, so that others can make it again.
nlohmann::ordered_json to_json(const FirstLayerInputs& inputs);

}  // namespace sinkref
