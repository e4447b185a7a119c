// The analysis of the first attention layer as a whole, and what of the paper's account holds.

#include "measure/first_layer/first_layer.h"

#include <algorithm>
#include <random>
#include <set>

#include "measure/first_layer/causal.h"
#include "sinkref/error.h"

namespace sinkref {

namespace {

constexpr size_t text_count = 1000, pair_side = 32;
constexpr uint64_t input_seed = 20250508;

/// `count` different tokens of `tokens`, in the order they are drawn.
std::vector<int> draw(std::vector<int> tokens, size_t count, std::mt19937_64& random) {
  for (size_t i = 0; i < count; ++i)
    std::swap(tokens[i], tokens[i + random() % (tokens.size() - i)]);
  tokens.resize(count);
  return tokens;
}

double strongest_mark(const OtherTokenDetection& detection) {
  double largest = 0, share = 0;
  for (const OtherTokenShift& head : detection.heads) largest = std::max(largest, head.size);
  for (const OtherTokenShift& head : detection.heads)
    if (head.size >= largest / 2) share = std::max(share, head.shares.mark);
  return share;
}

std::vector<Claim> claims_of(const FirstLayerResult& r, const std::vector<SinkLayer>& sinks) {
  std::vector<Claim> claims;
  const auto at_least = [&](const std::string& statement, double measured, double threshold) {
    claims.push_back({statement, measured, threshold, true});
  };
  const auto at_most = [&](const std::string& statement, double measured, double threshold) {
    claims.push_back({statement, measured, threshold, false});
  };
  at_least("the strongest detector tells position 0 from 1 and 2 (share of texts)",
           r.detectors.at(0).separated, 0.95);
  at_least("a strong head's output says that another token is seen, not which (share of its change)",
           strongest_mark(r.detection), 0.5);
  at_least("so does the strongest detector (share of the change of its pre-activation)",
           r.detection.detector_totals.at(0).shares.mark, 0.5);
  for (const Convergence& run : r.runs) {
    // Too short for a rate, or nothing but the token itself was seen.
    if (run.layer_distance.size() < 10 || run.other_attention.front() == 0) continue;
    at_most("repeats of \"" + run.word + "\" approach the lone token no slower than theorem 4.1's "
            "rate (log-log slope, less the rate's)", run.slope_distance - run.slope_rate, 0.1);
    at_most("and come near it (distance after layer 0, last against first repeat)",
            run.layer_distance.back() / run.layer_distance.front(), 0.1);
  }
  if (sinks.empty()) return claims;
  const SinkLayer& first = first_sink(sinks);
  const size_t s = static_cast<size_t>(&first - sinks.data());
  const std::string sink = "the sink of layer " + std::to_string(first.layer);
  for (const Blinding& blinding : r.blinding)
    if (blinding.layers == std::vector<size_t>{0} && !blinding.head)
      at_least("ordinary tokens that see only themselves in layer 0 fire " + sink + " (share)",
               blinding.sinks[s].fires, 0.5);
  at_most("lone tokens that are given layer 0's mark no longer fire " + sink + " (share)",
          r.fires_marked[s], 0.5);
  at_most("without layer 0's detectors " + sink + " does not form (norm against with them)",
          r.by_layer.at(0).norm_ablated[s] / first.norm_first, 0.5);
  return claims;
}

}  // namespace

FirstLayerInputs first_layer_inputs(const std::vector<int>& ordinary, const SinkInputs& inputs,
                                    std::vector<SinkLayer> sinks) {
  const std::set<int> unique(ordinary.begin(), ordinary.end());
  const std::vector<int> tokens(unique.begin(), unique.end());
  if (tokens.size() < 4)
    throw InputError("the analysis of the first layer needs at least 4 different ordinary tokens, "
                     "found " + std::to_string(tokens.size()) + "; give more with --tokens");
  std::mt19937_64 random(input_seed);
  FirstLayerInputs chosen;
  for (size_t i = 0; i < text_count; ++i) chosen.texts.push_back(draw(tokens, 3, random));
  const size_t side = std::min(pair_side, tokens.size() / 2);
  const std::vector<int> drawn = draw(tokens, 2 * side, random);
  chosen.readers.assign(drawn.begin(), drawn.begin() + static_cast<long>(side));
  chosen.others.assign(drawn.begin() + static_cast<long>(side), drawn.end());
  chosen.words = inputs.words;
  chosen.repeats = inputs.repeats;
  chosen.text = inputs.text;
  chosen.lone = inputs.lone;
  chosen.sinks = std::move(sinks);
  return chosen;
}

template <class T>
FirstLayerResult analyse_first_layer(const Model& model, const RunOptions& options,
                                     const FirstLayerInputs& inputs, const Step& step) {
  FirstLayerResult r;
  r.precision = std::is_same_v<T, float> ? "fp32" : "fp64";
  step("first layer: detectors over " + std::to_string(inputs.texts.size()) + " texts");
  r.detectors = find_detectors<T>(model, options, inputs.texts, 0, first_layer_detectors);
  r.heads = account_by_position<T>(model, options, inputs.texts, r.detectors, r.closure);
  step("first layer: what heads see of other tokens");
  r.detection = detect_other_tokens<T>(model, options, inputs, r.detectors);
  for (const SinkInputs::Word& word : inputs.words) {
    step("first layer: " + std::to_string(inputs.repeats) + " repeats of \"" + word.text +
         "\" against it alone");
    r.runs.push_back(
        follow_run<T>(model, options, word, inputs.repeats, r.detectors, r.closure));
  }
  step("first layer: causal checks");
  r.blinding = blind<T>(model, options, inputs);
  r.fires_lone = share_of_lone_that_fire<T>(model, options, inputs, {});
  r.fires_marked = share_of_lone_that_fire<T>(model, options, inputs, r.detection.mark);
  r.by_layer = detectors_by_layer<T>(model, options, inputs, r.detectors);
  r.claims = claims_of(r, inputs.sinks);
  return r;
}

template FirstLayerResult analyse_first_layer<float>(
    const Model&, const RunOptions&, const FirstLayerInputs&,
    const Step&);
template FirstLayerResult analyse_first_layer<double>(
    const Model&, const RunOptions&, const FirstLayerInputs&,
    const Step&);

}  // namespace sinkref
