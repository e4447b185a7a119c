#include "measure/first_layer/first_layer.h"
#include "measure/json.h"

namespace sinkref {

using nlohmann::ordered_json;

namespace {

ordered_json account_json(const PreAccount& a) {
  return {{"embed", a.embed}, {"bias", a.bias},   {"same", a.same},  {"other", a.other},
          {"scale", a.scale}, {"sum", a.sum()},   {"whole", a.whole}, {"bound", a.bound}};
}

ordered_json detector_json(const Detector& d) {
  return {{"neuron", d.neuron},
          {"difference", d.difference},
          {"separated", d.separated},
          {"mean", d.mean},
          {"deviation", d.deviation},
          {"account", each(d.account, account_json)},
          {"histogram",
           {{"first_edge", d.histogram.first_edge},
            {"bin_width", d.histogram.bin_width},
            {"counts", d.histogram.counts}}}};
}

ordered_json head_json(const HeadByPosition& h) {
  return {{"attention_same", h.same},
          {"attention_other", h.other},
          {"norm_same", h.same_norm},
          {"norm_other", h.other_norm}};
}

ordered_json shift_json(const OtherTokenShift& s) {
  return {{"attention", s.attention},
          {"size", s.size},
          {"mark", s.mark},
          {"shares",
           {{"mark", s.shares.mark},
            {"reader", s.shares.reader},
            {"other", s.shares.other},
            {"both", s.shares.both}}}};
}

ordered_json detection_json(const OtherTokenDetection& d) {
  return {{"heads", each(d.heads, shift_json)},
          {"attention_output", shift_json(d.attention)},
          {"detectors", each(d.detectors, [](const auto& heads) { return each(heads, shift_json); })},
          {"detector_totals", each(d.detector_totals, shift_json)}};
}

ordered_json run_account_json(const RunAccount& a) {
  ordered_json j = {{"repeat", a.repeat}};
  j.update(account_json(a.account));
  return j;
}

ordered_json run_json(const Convergence& c) {
  return {{"word", c.word},
          {"token", c.token},
          {"attention_distance", c.attention_distance},
          {"layer_distance", c.layer_distance},
          {"lone_norm", c.lone_norm},
          {"other_attention", c.other_attention},
          {"bound", c.bound},
          {"rate", c.rate},
          {"predicted", each(c.predicted,
                             [](const Convergence::Predicted& p) {
                               return ordered_json{{"repeat", p.repeat}, {"distance", p.distance}};
                             })},
          {"slope_distance", c.slope_distance},
          {"slope_attention", c.slope_attention},
          {"slope_rate", c.slope_rate},
          {"detectors",
           each(c.detectors, [](const auto& run) { return each(run, run_account_json); })},
          {"lone", each(c.lone, run_account_json)}};
}

ordered_json blinding_json(const Blinding& b) {
  ordered_json j = {{"layers", b.layers}, {"head", nullptr}};
  if (b.head) j["head"] = *b.head;
  j["sinks"] = each(b.sinks, [](const Blinding::Sink& s) {
    return ordered_json{{"layer", s.layer}, {"median_norm", s.median_norm}, {"fires", s.fires}};
  });
  return j;
}

ordered_json by_layer_json(const LayerDetectors& l) {
  return {{"layer", l.layer},
          {"neurons", l.neurons},
          {"difference", l.difference},
          {"separated", l.separated},
          {"norm_ablated", l.norm_ablated},
          {"norm_control", l.norm_control}};
}

ordered_json claim_json(const Claim& c) {
  ordered_json j = {{"statement", c.statement},
                    {"holds", c.holds()},
                    {"measured", c.measured},
                    {c.at_least ? "at_least" : "at_most", c.threshold},
                    {"about", c.about},
                    {"causal", c.causal}};
  if (!c.word.empty()) j["word"] = c.word;
  if (!c.control.empty()) j["control"] = {{"is", c.control}, {"measured", c.control_measured}};
  return j;
}

}  // namespace

ordered_json to_json(const FirstLayerInputs& inputs) {
  return {{"texts", inputs.texts},
          {"readers", inputs.readers},
          {"others", inputs.others},
          {"words", each(inputs.words,
                         [](const SinkInputs::Word& w) {
                           return ordered_json{{"word", w.text}, {"prefix", w.prefix}, {"token", w.token}};
                         })},
          {"repeats", inputs.repeats},
          {"text", inputs.text},
          {"lone", inputs.lone},
          {"sinks", each(inputs.sinks, [](const SinkLayer& s) {
             return ordered_json{{"layer", s.layer}, {"fires_above", s.fires_above()}};
           })}};
}

ordered_json to_json(const FirstLayerResult& r) {
  return {{"precision", r.precision},
          {"closure",
           {{"sums", r.closure.sums},
            {"worst_of_bound", r.closure.worst_of_bound},
            {"worst_relative", r.closure.worst_relative}}},
          {"claims", each(r.claims, claim_json)},
          {"detectors", each(r.detectors, detector_json)},
          {"heads", each(r.heads, head_json)},
          {"detect_other_tokens", detection_json(r.detection)},
          {"runs", each(r.runs, run_json)},
          {"blinding", each(r.blinding, blinding_json)},
          {"lone_tokens", {{"fires", r.fires_lone}, {"fires_with_mark", r.fires_marked}}},
          {"detectors_by_layer", each(r.by_layer, by_layer_json)}};
}

}  // namespace sinkref
