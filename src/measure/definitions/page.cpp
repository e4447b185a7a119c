// The two neighbouring definitions: massive activations and the sink metric.

#include <algorithm>
#include <cmath>

#include "measure/definitions/panel.h"
#include "measure/sinks/panel.h"
#include "page/words.h"

namespace sinkref {

namespace {

/// What the samples of repeats are: with BOS before them or not, another thing is measured.
std::string repeated_text(const PageContext& context) {
  const bool bos = context.usual().name.starts_with("BOS");
  return std::string("one word repeated ") + (bos ? "after BOS" : "with nothing before it");
}

Finding definitions_finding(const PageContext& context) {
  const Results& results = context.results;
  const Definitions& found = context.results.get<Definitions>();
  const size_t rule = first_layer_above(results.norms, results.norms.threshold_notebook);
  std::vector<size_t> massive;
  for (size_t layer = 0; layer < found.massive.size(); ++layer)
    if (found.massive[layer].by_all) massive.push_back(layer);
  std::string answer = rule < results.norms.mlp_first.size()
                           ? "The paper's rule names layer " + std::to_string(rule)
                           : "The paper's rule names no layer";
  answer += massive.empty() ? "; no layer has massive activations"
            : massive.size() == 1
                ? "; layer " + std::to_string(massive[0]) + " has massive activations"
                : "; layers " + std::to_string(massive.front()) + " to " +
                      std::to_string(massive.back()) + " have massive activations";
  answer += "; more than 30 % of their attention is parked on position 0 by " +
            percent(found.metrics[0].percent / 100) + " of the heads on ordinary text, " +
            percent(found.metrics[1].percent / 100) + " on " + repeated_text(context) + " and " +
            percent(found.metrics[2].percent / 100) + " on random tokens.";
  return {"Do the published definitions see it too?", answer,
          "Yona et al.: first of the first 15 layers above mean + 2 standard deviations. Sun et "
          "al.: a value above 100 and 1000 medians. Gu et al.: sink metric, epsilon 0.3.",
          "sinks"};
}

}  // namespace

Figure definitions_figure(const PageContext& context) {
  const Results& results = context.results;
  const Definitions& found = context.results.get<Definitions>();
  std::vector<double> top, all, token;
  for (const MassiveLayer& layer : found.massive) {
    top.push_back(std::fabs(layer.largest[0].value));
    all.push_back(massive_over_median * layer.median_all);
    token.push_back(massive_over_median * layer.median_token);
  }
  LineChart massive{"Massive activations in ordinary text", {"layer", false},
                    {"magnitude", true}, {}, {{"100", massive_magnitude, false}}};
  massive.series = {{"largest", counting(top.size()), top, 0, Series::Mark::line},
                    {"1000 × median, all tokens", counting(all.size()), all, 1, Series::Mark::dashed},
                    {"1000 × median, its token", counting(token.size()), token, 2, Series::Mark::dashed}};
  LineChart metric{"Sink metric per layer", {"layer", false},
                   {"heads above 0.3, %", false}, {}, sink_rules(results.sinks)};
  for (const SinkMetric& m : found.metrics)
    metric.series.push_back({m.kind, counting(m.by_layer.size()), m.by_layer, metric.series.size(),
                             Series::Mark::line});
  HeatMap heads{"Attention on position 0 per head, ordinary text", "head", "layer",
                "mean attention", found.metrics[0].attention};
  return {"definitions", "Two neighbouring definitions",
          "Three panels. Massive activation (Sun et al.): a value above 100 and above 1000 times the median "
          "magnitude of the hidden state. Sink metric (Gu et al.): share of heads whose attention "
          "on position 0, averaged over " + std::to_string(found.metrics[0].length) +
              " tokens, exceeds 0.3: by layer on each kind of sample, and head by head on text.",
          context.trace_command(context.stimuli().sink.text,
                                "blocks.*.hook_resid_post,blocks.*.attn.hook_pattern"),
          {massive, metric, heads},
          context.text_of_ids(context.stimuli().sink.text)};
}

Table definitions_table(const PageContext& context) {
  const Results& results = context.results;
  const Definitions& found = context.results.get<Definitions>();
  Table table{"The definitions side by side, for every layer that any of them names",
              {"layer", "first / typical (MLP)", "above mean + 2 std", "sink neurons (causal)",
               "massive, all tokens", "massive, its token", "sink metric, %"},
              {}};
  for (size_t layer = 0; layer < found.massive.size(); ++layer) {
    const auto sink = std::find_if(results.sinks.begin(), results.sinks.end(),
                                   [&](const SinkLayer& s) { return s.layer == layer; });
    const bool by_rule = results.norms.mlp_first[layer] > results.norms.threshold;
    const MassiveLayer& massive = found.massive[layer];
    if (!by_rule && sink == results.sinks.end() && !massive.by_all && !massive.by_token) continue;
    const auto yes = [](bool b) { return b ? "yes" : "–"; };
    table.rows.push_back({std::to_string(layer),
                          plain(results.norms.mlp_first[layer] / results.norms.mlp_typical[layer]),
                          yes(by_rule),
                          sink == results.sinks.end() ? "–" : list_text(sink->neurons),
                          yes(massive.by_all), yes(massive.by_token),
                          plain(found.metrics[0].by_layer[layer])});
  }
  return table;
}

void definitions_page(const PageContext& context, Page& page) {
  page.findings.push_back(definitions_finding(context));
}

}  // namespace sinkref
