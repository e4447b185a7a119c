#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "sinkref/sink.h"
#include "sinkref/tokenizer.h"

// What a model is shown: built-in text and words as the model's tokens, or ids that were given.

namespace sinkref {

struct Stimuli {
  SinkInputs sink;  ///< `words` stand in the first of the conditions
  /// What stands before the runs: "BOS", "BOS, request", "request", "nothing".
  struct Condition {
    std::string name;
    std::vector<int> prefix;
    bool request = false;  ///< asks for the repeats: the repeat task is judged here
    size_t repeats = 0;
  };
  std::vector<Condition> conditions;
  /// For the sink metric: "text" first, then "repeated" and "random".
  struct Samples {
    std::string kind;
    std::vector<std::vector<int>> tokens;
  };
  std::vector<Samples> samples;
  /// What is patched; by default the neurons of all sinks that are found.
  std::optional<std::vector<Neurons>> patch;
  std::shared_ptr<const Tokenizer> tokenizer;  ///< none where ids were given
  BosPolicy bos = BosPolicy::automatic;

  const Condition& usual() const { return conditions[0]; }
};

/// What of the stimuli a user may choose.
struct StimulusChoice {
  std::optional<std::vector<int>> ids;  ///< instead of text
  std::vector<std::string> words;       ///< what is repeated; empty: the paper's
  std::optional<std::string> prefix;    ///< the request that stands before the run
  BosPolicy bos = BosPolicy::automatic;
  size_t repeats = 0;
  bool repeats_given = false;  ///< otherwise a short context may cut them
};

/// Every condition and the samples of the sink metric. Repeats are cut to what the model's context
/// holds; ones that were given and do not fit are an InputError.
Stimuli stimuli_for(const Model& model, const StimulusChoice& choice);

/// The built-in text alone; for a model without a tokenizer, if `ids_will_do`, ids from all over
/// the vocabulary.
SinkInputs ordinary_text(const Model& model, const StimulusChoice& choice, bool ids_will_do);

/// Pieces of ordinary text to measure the perplexity on, each a sequence of its own; without a
/// tokenizer the text of the sink analysis.
std::vector<std::vector<int>> perplexity_pieces(const Model& model, const Stimuli& stimuli);

/// Common words as they stand inside a text; without a tokenizer all ordinary ids.
std::vector<int> common_tokens(const Model& model, const Stimuli& stimuli);

/// The word as it stands inside a text: with the mark of the space before it. Where it has several
/// tokens, its last is what is repeated.
int word_token(const Tokenizer& tokenizer, const std::string& word);

/// Ids that may stand in a text: no BOS, no eos, no control or byte tokens ("<s>", "<0x0A>").
std::vector<int> ordinary_ids(const Model& model, const Tokenizer* tokenizer);

}  // namespace sinkref
