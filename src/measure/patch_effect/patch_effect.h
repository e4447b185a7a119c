#pragma once

#include <iterator>
#include <optional>
#include <string>
#include <vector>

#include "base/progress.h"
#include "measure/observe.h"
#include "measure/repeats/repeats.h"
#include "sinkref/interventions.h"
#include "sinkref/sink.h"

// What the patch does to runs that set off the sink, and what it costs on ordinary text.
// The paper pins up_proj (section 6). A neuron is silu(gate)·up, and where its gate is the switch
// that patch is only partial: so the other things that can be pinned stand beside it.

namespace sinkref {

/// The original, the patch at a site (`both` stands for `post` too: they are one model), and the
/// neurons ablated at every position, which takes the first token's sink away as well.
struct Intervention {
  const char* name;
  std::optional<PatchSite> patch;
  bool ablate = false;
};
inline constexpr Intervention interventions[] = {{"original", {}, false},
                                                 {"up", PatchSite::up, false},
                                                 {"gate", PatchSite::gate, false},
                                                 {"both", PatchSite::both, false},
                                                 {"ablated", {}, true}};
inline constexpr size_t intervention_count = std::size(interventions);

struct PatchEffectInputs {
  std::vector<SinkLayer> sinks;
  std::vector<Neurons> neurons;  ///< what is patched; need not be those of the sinks
  /// Tokens that may set off the sink: repeats of one, or of different ones (the cluster attack).
  struct Run {
    std::string name;
    std::vector<int> prefix;  ///< at least one token: the patch starts at position 1
    std::vector<int> tokens;
  };
  std::vector<Run> runs;
  /// The words of the usual condition: what still sets the sink off.
  struct WordRuns {
    SinkInputs::Word word;
    size_t repeats = 0;
    const RepeatRun* original = nullptr;  ///< measured already, as is that with up pinned
    const RepeatRun* up = nullptr;
  };
  std::vector<WordRuns> words;
  std::vector<std::vector<int>> text;  ///< pieces of ordinary text, each a sequence of its own
};

/// A patched neuron at one position.
struct NeuronValue {
  size_t layer, neuron;
  double gate, up, post;
  double added;  ///< |post|·‖W_down[:, neuron]‖: the norm of what it adds to the residual
};

/// ‖resid_post‖ of a sink layer along a run.
struct RunNorms {
  size_t layer;
  std::vector<double> norms;  ///< at the n-th token of the run, n = 1 …
  size_t count = 0;           ///< first n with norm > SinkLayer::fires_above(); 0 if none
};

/// Where the last token of a run attends, means over the heads.
struct RunAttention {
  size_t layer;
  double on_first, on_run;
};

struct TokenProbability {
  int token;
  double probability;
};

/// One run under one intervention.
struct RunEffect {
  std::vector<RunNorms> sinks;
  std::vector<NeuronValue> neurons;        ///< at the last token of the run
  std::vector<RunAttention> attention;     ///< at the layers of attention_layers()
  std::vector<TokenProbability> next;      ///< the five likeliest after the run
  double entropy = 0;                      ///< of the next token, nats
  double total_variation = 0, kl = 0;      ///< from the original's next token; kl in nats
  double run_probability = 0;              ///< that the next token is one of the run's
  std::vector<int> continuation;           ///< greedy, at most patch_continuation tokens
  size_t kept = 0;                         ///< of them, tokens of the run before the first other
};

struct RunEffects {
  std::string name;
  size_t length = 0;
  std::vector<NeuronValue> first, second;  ///< positions 0 and 1: the sink, and where v is taken
  std::vector<RunEffect> effects;          ///< one per intervention
};

/// How a vocabulary entry's logit moves, over all positions of the text. Softmax ignores what all
/// logits of a position have in common, so that mean is taken out first.
struct LogitShift {
  int token;
  double mean_absolute, mean;
};

/// The positions whose next-token distribution moves most.
struct PositionShift {
  size_t piece, position;
  int token;                  ///< what is there
  double kl;                  ///< nats, original || patched
  double nll, nll_patched;    ///< of the token that follows
};

/// Ordinary text under one intervention. Standard errors are taken over the pieces (a piece's
/// tokens are not independent): of a ratio of sums, linearised.
struct TextEffect {
  double nll = 0, nll_error = 0;                ///< mean per predicted token, nats
  double difference = 0, difference_error = 0;  ///< nll - the original's, paired by piece
  double perplexity = 0, perplexity_error = 0;
  double kl_mean = 0, kl_max = 0;               ///< nats, original || this
  double argmax_changed = 0;                    ///< share of positions
  double logit_rms = 0, logit_max = 0;          ///< of the moves (LogitShift)
  std::vector<LogitShift> tokens;               ///< the ten that move most, by mean_absolute
  std::vector<PositionShift> positions;         ///< the ten that move most, by kl
};

/// A word's run at one sink under one intervention.
struct WordAtSink {
  size_t layer = 0;
  size_t count = 0;  ///< first n with norm > SinkLayer::fires_above(); 0 if none
  double norm_last = 0;
};

struct WordEffect {
  std::string word;
  int token = 0;
  std::vector<std::vector<WordAtSink>> sinks;  ///< [intervention][sink]
};

struct PatchEffect {
  std::vector<Neurons> neurons;
  std::vector<RunEffects> runs;
  std::vector<WordEffect> words;
  size_t pieces = 0, predicted = 0;   ///< of the text: pieces, and tokens that were predicted
  std::vector<TextEffect> text;       ///< one per intervention
};

inline constexpr size_t patch_continuation = 12;

/// Adds the hooks of an intervention.
void add_intervention(const Intervention& intervention, const std::vector<Neurons>& neurons,
                      Hooks<float>& hooks);

/// What the patch of `inputs.neurons` (not empty) does to every run and to the text.
PatchEffect measure_patch_effect(const Model& model, const RunOptions& options,
                                 const PatchEffectInputs& inputs, Progress& progress);
/// What that is worth (Progress).
double patch_effect_work(const ModelConfig& config, const PatchEffectInputs& inputs);

/// Σ sums / Σ counts over pieces, and its standard error (linearised; NaN for a single piece).
struct RatioEstimate {
  double mean = 0, error = 0;
};
RatioEstimate ratio_estimate(const std::vector<double>& sums, const std::vector<size_t>& counts);

}  // namespace sinkref
