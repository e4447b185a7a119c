// The analysis of the first attention layer as a whole, and what of the paper's account holds.

#include "measure/first_layer/first_layer.h"

#include <algorithm>
#include <random>
#include <set>

#include "measure/first_layer/causal.h"
#include "model/work.h"
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

/// The causal ones first.
std::vector<Claim> claims_of(const FirstLayerResult& r, const std::vector<SinkLayer>& sinks) {
  std::vector<Claim> claims;
  if (!sinks.empty()) {
    const SinkLayer& first = first_sink(sinks);
    const size_t s = static_cast<size_t>(&first - sinks.data());
    const std::string sink = "the sink of layer " + std::to_string(first.layer);
    double fires = 0;  // with nothing blinded
    for (const Blinding& blinding : r.blinding)
      if (blinding.layers.empty()) fires = blinding.sinks[s].fires;
    for (const Blinding& blinding : r.blinding)
      if (blinding.layers == std::vector<size_t>{0} && !blinding.head)
        claims.push_back({"ordinary tokens that see only themselves in layer 0 fire " + sink + " (share)",
                          blinding.sinks[s].fires, 0.5, true, "blinding", true, "",
                          "the same tokens that see all others", fires});
    claims.push_back({"lone tokens that are given layer 0's mark no longer fire " + sink + " (share)",
                      r.fires_marked[s], 0.5, false, "mark_given", true, "",
                      "the same lone tokens without the mark", r.fires_lone[s]});
    const LayerDetectors& layer_zero = r.by_layer.at(0);
    claims.push_back({"without layer 0's detectors " + sink + " does not form (norm against with them)",
                      layer_zero.norm_ablated[s] / first.norm_first, 0.5, false, "detectors_ablated", true, "",
                      "without as many other neurons of layer 0, drawn at random",
                      layer_zero.norm_control[s] / first.norm_first});
  }
  const auto observed = [&](const std::string& about, const std::string& statement, double measured,
                            double threshold, bool at_least, const std::string& word = {}) {
    claims.push_back({statement, measured, threshold, at_least, about, false, word, "", 0});
  };
  observed("detector", "the strongest detector tells position 0 from 1 and 2 (share of texts)",
           r.detectors.at(0).separated, 0.95, true);
  observed("head_mark", "a strong head's output says that another token is seen, not which (share of its change)",
           strongest_mark(r.detection), 0.5, true);
  observed("detector_mark", "so does the strongest detector (share of the change of its pre-activation)",
           r.detection.detector_totals.at(0).shares.mark, 0.5, true);
  // Too short for a rate, or nothing but the token itself was seen.
  const auto tried = [](const Convergence& run) {
    return run.layer_distance.size() >= 10 && run.other_attention.front() != 0;
  };
  for (const Convergence& run : r.runs)
    if (tried(run))
      observed("rate", "repeats of \"" + run.word + "\" approach the lone token no slower than theorem 4.1's "
               "rate (log-log slope, less the rate's)", run.slope_distance - run.slope_rate, 0.1, false, run.word);
  for (const Convergence& run : r.runs)
    if (tried(run))
      observed("arrival", "repeats of \"" + run.word + "\" come near the lone token (distance after layer 0, "
               "last against first repeat)", run.layer_distance.back() / run.layer_distance.front(), 0.1, false,
               run.word);
  return claims;
}

/// The parts of first_layer_work(). Recording layer 0 and forming its sums costs more than running it.
struct LayerZeroWork {
  double texts, pairs, run, blinding, by_layer;
};

LayerZeroWork work_parts(const ModelConfig& c, const FirstLayerInputs& inputs) {
  constexpr double recorded = 2.5;  // times the block alone
  const auto block = [&](size_t tokens, size_t sequences) { return prefill_work(c, tokens, sequences, 0, 1); };
  size_t last = 0, first = 0, blinded = 0;
  if (!inputs.sinks.empty()) {
    for (const SinkLayer& sink : inputs.sinks) last = std::max(last, sink.layer);
    first = first_sink(inputs.sinks).layer;
    blinded = last + 2 + first + c.heads;
  }
  const size_t prefix = inputs.words.empty() ? 0 : inputs.words[0].prefix.size();
  return {(1 + recorded) * block(3, inputs.texts.size()),
          recorded * block(2, inputs.readers.size() * inputs.others.size()),
          recorded * block(prefix + inputs.repeats, 1),
          double(blinded) * prefill_work(c, inputs.text.size(), 1, 0, last + 1),
          double(first) * prefill_work(c, 3, inputs.texts.size(), 0, (first + 2) / 2)};
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

double first_layer_work(const ModelConfig& config, const FirstLayerInputs& inputs) {
  const LayerZeroWork work = work_parts(config, inputs);
  return work.texts + work.pairs + double(inputs.words.size()) * work.run + work.blinding + work.by_layer;
}

template <class T>
FirstLayerResult analyse_first_layer(const Model& model, const RunOptions& options,
                                     const FirstLayerInputs& inputs, Progress& progress) {
  const double times = std::is_same_v<T, float> ? 1 : 3;
  const LayerZeroWork work = work_parts(model.config(), inputs);
  FirstLayerResult r;
  r.precision = std::is_same_v<T, float> ? "fp32" : "fp64";
  progress.step("first layer: detectors over " + std::to_string(inputs.texts.size()) + " texts",
                times * work.texts);
  r.detectors = find_detectors<T>(model, options, inputs.texts, 0, first_layer_detectors);
  r.heads = account_by_position<T>(model, options, inputs.texts, r.detectors, r.closure);
  progress.step("first layer: what heads see of other tokens", times * work.pairs);
  r.detection = detect_other_tokens<T>(model, options, inputs, r.detectors);
  for (const SinkInputs::Word& word : inputs.words) {
    progress.step("first layer: " + std::to_string(inputs.repeats) + " repeats of \"" + word.text +
                      "\" against it alone",
                  times * work.run);
    r.runs.push_back(
        follow_run<T>(model, options, word, inputs.repeats, r.detectors, r.closure));
  }
  progress.step("first layer: causal checks", times * (work.blinding + work.by_layer));
  r.blinding = blind<T>(model, options, inputs);
  r.fires_lone = share_of_lone_that_fire<T>(model, options, inputs, {});
  r.fires_marked = share_of_lone_that_fire<T>(model, options, inputs, r.detection.mark);
  r.by_layer = detectors_by_layer<T>(model, options, inputs, r.detectors);
  r.claims = claims_of(r, inputs.sinks);
  return r;
}

template FirstLayerResult analyse_first_layer<float>(
    const Model&, const RunOptions&, const FirstLayerInputs&,
    Progress&);
template FirstLayerResult analyse_first_layer<double>(
    const Model&, const RunOptions&, const FirstLayerInputs&,
    Progress&);

}  // namespace sinkref
