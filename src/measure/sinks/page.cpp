// Panel 4: sink layers by three definitions, and the neurons with their causal check.

#include <algorithm>
#include <cmath>

#include "measure/section.h"

namespace sinkref {

namespace {

std::vector<Rule> sink_rules(const std::vector<SinkLayer>& sinks) {
  std::vector<Rule> rules;
  for (const SinkLayer& sink : sinks)
    rules.push_back({"sink " + std::to_string(sink.layer), static_cast<double>(sink.layer), true});
  std::sort(rules.begin(), rules.end(), [](const Rule& a, const Rule& b) { return a.at < b.at; });
  return rules;
}

LineChart layer_chart(const Report& report, const std::string& title, const std::string& y,
                      const std::vector<double>& first, const std::vector<double>& typical) {
  LineChart chart{title, {"layer", false}, {y, true}, {}, sink_rules(report.sinks)};
  chart.series = {{"first token", counting(first.size()), first, 0, Series::Mark::line},
                  {"ordinary text (mean)", counting(typical.size()), typical, 7, Series::Mark::line}};
  return chart;
}

Figure layers_figure(const PageContext& context) {
  const Report& report = context.report;
  Figure figure{"norm_by_layer", "What each layer makes of the first token",
                "Euclidean norms of hook_resid_post and hook_mlp_out, the lone first token against "
                "the mean over ordinary text. The paper's rule: the first layer whose MLP output "
                "exceeds mean + 2 standard deviations over the layers.",
                context.trace_command(context.inputs.sink.lone,
                                      "blocks.*.hook_mlp_out,blocks.*.hook_resid_post"),
                {}};
  figure.panels.push_back(layer_chart(report, "Residual stream after the layer", "norm",
                                      report.norms.resid_first, report.norms.resid_typical));
  LineChart mlp = layer_chart(report, "What the layer's MLP adds", "norm", report.norms.mlp_first,
                              report.norms.mlp_typical);
  if (std::isfinite(report.norms.threshold))
    mlp.rules.push_back({"paper's rule", report.norms.threshold, false});
  figure.panels.push_back(std::move(mlp));
  return figure;
}

Figure massive_figure(const PageContext& context) {
  const Report& report = context.report;
  std::vector<double> top, all, token;
  for (const MassiveLayer& layer : report.massive) {
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
                   {"heads above 0.3, %", false}, {}, sink_rules(report.sinks)};
  for (const SinkMetric& m : report.metrics)
    metric.series.push_back({m.kind, counting(m.by_layer.size()), m.by_layer, metric.series.size(),
                             Series::Mark::line});
  HeatMap heads{"Attention on position 0 per head, ordinary text", "head", "layer",
                "mean attention", report.metrics[0].attention, {}};
  return {"definitions", "Two neighbouring definitions",
          "Massive activation (Sun et al.): a value above 100 and above 1000 times the median "
          "magnitude of the hidden state. Sink metric (Gu et al.): share of heads whose attention "
          "on position 0, averaged over " + std::to_string(report.metrics[0].length) +
              " tokens, exceeds 0.3.",
          context.trace_command(context.inputs.sink.text,
                                "blocks.*.hook_resid_post,blocks.*.attn.hook_pattern"),
          {massive, metric, heads}};
}

Figure neurons_figure(const PageContext& context) {
  Figure figure{"sink_neurons", "The strongest neurons of each sink layer",
                "Contribution of neuron j on the lone first token: |post_j| times the norm of its "
                "column of W_down, with post = silu(gate)·up (the paper's text), or with the gate's "
                "pre-activation (the paper's notebook). Ablated: residual norm with that neuron "
                "alone set to zero.",
                "sinkref sink --model " + context.model + " --json", {}};
  for (const SinkLayer& sink : context.report.sinks) {
    LineChart chart{"Layer " + std::to_string(sink.layer), {"rank", false},
                    {"norm", true}, {}, {{"not ablated", sink.norm_first, false}}};
    const auto add = [&](const std::string& name, const std::vector<NeuronContribution>& from,
                         double NeuronContribution::* value, Series::Mark mark) {
      Series series{name, counting(from.size(), 1), {}, chart.series.size(), mark};
      for (const NeuronContribution& c : from) series.y.push_back(c.*value);
      chart.series.push_back(std::move(series));
    };
    add("gated activation", sink.candidates, &NeuronContribution::gated, Series::Mark::line);
    add("gate alone", sink.by_gate.candidates, &NeuronContribution::gate, Series::Mark::line);
    add("residual, this one ablated", sink.candidates, &NeuronContribution::norm_ablated,
        Series::Mark::dots);
    figure.panels.push_back(std::move(chart));
  }
  return figure;
}

Table definitions_table(const PageContext& context) {
  const Report& report = context.report;
  Table table{"The definitions side by side, for every layer that any of them names",
              {"layer", "first / typical (MLP)", "above mean + 2 std", "sink neurons (causal)",
               "massive, all tokens", "massive, its token", "sink metric, %"},
              {}};
  for (size_t layer = 0; layer < report.massive.size(); ++layer) {
    const auto sink = std::find_if(report.sinks.begin(), report.sinks.end(),
                                   [&](const SinkLayer& s) { return s.layer == layer; });
    const bool by_rule = report.norms.mlp_first[layer] > report.norms.threshold;
    const MassiveLayer& massive = report.massive[layer];
    if (!by_rule && sink == report.sinks.end() && !massive.by_all && !massive.by_token) continue;
    const auto yes = [](bool b) { return b ? "yes" : "–"; };
    table.rows.push_back({std::to_string(layer),
                          plain(report.norms.mlp_first[layer] / report.norms.mlp_typical[layer]),
                          yes(by_rule),
                          sink == report.sinks.end() ? "–" : list_text(sink->neurons),
                          yes(massive.by_all), yes(massive.by_token),
                          plain(report.metrics[0].by_layer[layer])});
  }
  return table;
}

Table ablation_table(const PageContext& context) {
  Table table{"Neurons by both rankings, kept if switching them off collapses the norm",
              {"layer", "ranking", "ten strongest", "kept", "norm before", "norm without them"}, {}};
  const auto add = [&](const SinkLayer& sink, const char* ranking,
                       const std::vector<NeuronContribution>& candidates,
                       const std::vector<size_t>& kept, double ablated) {
    std::vector<size_t> ten;
    for (const NeuronContribution& c : candidates) ten.push_back(c.neuron);
    table.rows.push_back({std::to_string(sink.layer), ranking, list_text(ten),
                          kept.empty() ? "none" : list_text(kept), plain(sink.norm_first),
                          kept.empty() ? "–" : plain(ablated)});
  };
  for (const SinkLayer& sink : context.report.sinks) {
    add(sink, "gated activation", sink.candidates, sink.neurons, sink.norm_ablated);
    add(sink, "gate pre-activation", sink.by_gate.candidates, sink.by_gate.neurons,
        sink.by_gate.norm_ablated);
  }
  return table;
}

}  // namespace

Section sinks_section(const PageContext& context) {
  Section section{"sinks",
                  "4. Sink layers and sink neurons",
                  "A sink layer gives the very first token an extreme residual, through a few "
                  "neurons of its MLP. The neurons are found by what they add and confirmed by "
                  "switching them off.",
                  {layers_figure(context), massive_figure(context)},
                  {definitions_table(context)}};
  if (!context.report.sinks.empty()) {
    section.figures.push_back(neurons_figure(context));
    section.tables.push_back(ablation_table(context));
  }
  return section;
}

}  // namespace sinkref
