// Sink layers by three definitions, and the neurons with their causal check.

#include <algorithm>
#include <cmath>

#include "measure/definitions/panel.h"
#include "measure/sinks/panel.h"
#include "page/words.h"

namespace sinkref {

namespace {

LineChart layer_chart(const Results& results, const std::string& title, const std::string& y,
                      const std::vector<double>& first, const std::vector<double>& typical) {
  LineChart chart{title, {"layer", false}, {y, true}, {}, sink_rules(results.sinks)};
  chart.series = {{"first token", counting(first.size()), first, 0, Series::Mark::line},
                  {"ordinary text (mean)", counting(typical.size()), typical, 7, Series::Mark::line}};
  return chart;
}

Figure layers_figure(const PageContext& context) {
  const Results& results = context.results;
  Figure figure{"norm_by_layer", "What each layer makes of the first token",
                "Euclidean norms of hook_resid_post and hook_mlp_out, the lone first token against "
                "the mean over ordinary text. The paper's rule: the first layer whose MLP output "
                "exceeds mean + 2 standard deviations over the layers.",
                context.trace_command(context.stimuli().sink.lone,
                                      "blocks.*.hook_mlp_out,blocks.*.hook_resid_post"),
                {}, context.text_of_ids(context.stimuli().sink.lone)};
  figure.plots.push_back(layer_chart(results, "Residual stream after the layer", "norm",
                                     results.norms.resid_first, results.norms.resid_typical));
  LineChart mlp = layer_chart(results, "What the layer's MLP adds", "norm", results.norms.mlp_first,
                              results.norms.mlp_typical);
  if (std::isfinite(results.norms.threshold))
    mlp.rules.push_back({"paper's rule", results.norms.threshold, false});
  figure.plots.push_back(std::move(mlp));
  return figure;
}

/// One ranking of one sink: the ten strongest by their ids.
LineChart neurons_chart(const SinkLayer& sink, const std::string& title, const std::string& contribution,
                        const std::vector<NeuronContribution>& from, double NeuronContribution::* value) {
  LineChart chart{"Layer " + std::to_string(sink.layer) + ", " + title, {"neuron", false},
                  {"norm", true}, {}, {{"not ablated", sink.norm_first, false}}};
  Series strength{contribution, counting(from.size(), 1), {}, 0, Series::Mark::line};
  Series ablated{"residual, this one ablated", strength.x, {}, 1, Series::Mark::dots};
  for (const NeuronContribution& c : from) {
    chart.x.names.push_back(std::to_string(c.neuron));
    strength.y.push_back(c.*value);
    ablated.y.push_back(c.norm_ablated);
  }
  chart.series = {std::move(strength), std::move(ablated)};
  return chart;
}

Figure neurons_figure(const PageContext& context) {
  Figure figure{"sink_neurons", "The strongest neurons of each sink layer",
                "Contribution of neuron j on the lone first token: |post_j| times the norm of its "
                "column of W_down, with post = silu(gate)·up (the paper's text), or with the gate's "
                "pre-activation (the paper's notebook), strongest first. Ablated: residual norm with "
                "that neuron alone set to zero.",
                context.study_command("sink"), {}};
  for (const SinkLayer& sink : context.results.sinks) {
    figure.plots.push_back(neurons_chart(sink, "by gated activation", "gated activation", sink.candidates,
                                         &NeuronContribution::gated));
    figure.plots.push_back(neurons_chart(sink, "by the gate alone", "gate alone", sink.by_gate.candidates,
                                         &NeuronContribution::gate));
  }
  return figure;
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
  for (const SinkLayer& sink : context.results.sinks) {
    add(sink, "gated activation", sink.candidates, sink.neurons, sink.norm_ablated);
    add(sink, "gate pre-activation", sink.by_gate.candidates, sink.by_gate.neurons,
        sink.by_gate.norm_ablated);
  }
  return table;
}

Section sinks_section(const PageContext& context) {
  Section section{"sinks",
                  "Sink layers and sink neurons",
                  "A sink layer gives the very first token an extreme residual, through a few "
                  "neurons of its MLP. The neurons are found by what they add and confirmed by "
                  "switching them off.",
                  {layers_figure(context), definitions_figure(context)},
                  {definitions_table(context)}};
  if (!context.results.sinks.empty()) {
    section.figures.push_back(neurons_figure(context));
    section.tables.push_back(ablation_table(context));
  }
  return section;
}

/// The least that is left when one of the candidates that were not kept is ablated.
std::string strongest_other(const SinkLayer& sink) {
  double least = INFINITY;
  for (const NeuronContribution& c : sink.candidates)
    if (std::find(sink.neurons.begin(), sink.neurons.end(), c.neuron) == sink.neurons.end())
      least = std::min(least, c.norm_ablated);
  return std::isfinite(least) ? "stays at " + plain(least) + " or more" : "";
}

std::string times(double ratio) { return plain(ratio) + " times"; }

Finding sink_finding(const PageContext& context) {
  const Results& results = context.results;
  Finding finding{"Does the model treat its very first token specially (an attention sink)?", "",
                  "Norm of the residual stream of the lone first token against ordinary text; the "
                  "layer's MLP must add more than " + plain(massive_ratio) +
                      " times the usual, by a few neurons.",
                  "sinks"};
  if (results.sinks.empty()) {
    finding.answer = "No. No layer's MLP gives the first token a norm far above that of ordinary "
                     "tokens by a few neurons.";
    return finding;
  }
  std::vector<std::string> parts;
  for (const SinkLayer& sink : results.sinks)
    parts.push_back("after layer " + std::to_string(sink.layer) + " the norm is " +
                    plain(sink.norm_first) + ", " + times(sink.norm_first / sink.norm_typical) +
                    " that of ordinary tokens (" + plain(sink.norm_typical) + ")");
  finding.answer = "Yes, the lone " + context.token_text(context.stimuli().sink.lone[0]) + ": " +
                   joined_text(parts) + ".";
  return finding;
}

Finding neurons_finding(const PageContext& context) {
  std::vector<std::string> parts, others;
  for (const SinkLayer& sink : context.results.sinks) {
    if (const std::string other = strongest_other(sink); !other.empty())
      others.push_back("layer " + std::to_string(sink.layer) + " " + other);
    parts.push_back(std::string(sink.neurons.size() == 1 ? "neuron " : "neurons ") +
                    list_text(sink.neurons) + " of layer " + std::to_string(sink.layer) +
                    " (without them the norm falls from " + plain(sink.norm_first) + " to " +
                    plain(sink.norm_ablated) + ")");
  }
  return {"Which neurons do it?", sentence(joined_text(parts)),
          "The fewest of the ten strongest whose zero-ablation takes the MLP's output below a "
          "quarter and the residual below a half.",
          "sinks",
          others.empty() ? "" : "the other strongest neurons, each switched off alone: " + joined_text(others) + "."};
}

}  // namespace

std::vector<Rule> sink_rules(const std::vector<SinkLayer>& sinks) {
  std::vector<Rule> rules;
  for (const SinkLayer& sink : sinks)
    rules.push_back({"sink " + std::to_string(sink.layer), static_cast<double>(sink.layer), true});
  std::sort(rules.begin(), rules.end(), [](const Rule& a, const Rule& b) { return a.at < b.at; });
  return rules;
}

void sinks_page(const PageContext& context, Page& page) {
  page.findings.push_back(sink_finding(context));
  if (!context.results.sinks.empty()) page.findings.push_back(neurons_finding(context));
  page.sections.push_back(sinks_section(context));
}

}  // namespace sinkref
