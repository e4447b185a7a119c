// Where attention goes, in ordinary text and along a run. Mass on position 0, mass on the run, and the
// norm are three figures.

#include <algorithm>

#include "measure/attention/panel.h"
#include "measure/definitions/panel.h"
#include "page/words.h"

namespace sinkref {

namespace {

using Values = std::vector<double> LayerAttention::*;

LineChart by_position(const std::vector<LayerAttention>& layers, Values values,
                      const std::string& title, const std::string& y, bool run, bool logarithmic) {
  LineChart chart;
  chart.title = title;
  chart.x = {"position of the query", run};
  chart.y = {y, logarithmic};
  for (const LayerAttention& layer : layers) {
    std::vector<double> chosen = layer.*values;
    // Position 0 can only see itself.
    chosen.erase(chosen.begin());
    chart.series.push_back({"layer " + std::to_string(layer.layer),
                            counting(chosen.size(), 1), chosen, chart.series.size(),
                            Series::Mark::line});
  }
  return chart;
}

/// Where the watched run begins and where it first sets off each sink, as positions.
std::vector<Rule> run_rules(const PageContext& context) {
  const AttentionResult& panel = context.results.get<AttentionResult>();
  std::vector<Rule> rules;
  if (panel.run_begins > 1) rules.push_back({"run begins", static_cast<double>(panel.run_begins), true});
  if (const RepeatRun* run = context.results.run_of(panel.word, panel.condition, false))
    for (const RepeatsNeeded& needed : repeats_needed(*run, context.results.sinks))
      if (needed.count > 0)
        rules.push_back({"layer " + std::to_string(needed.layer) + " set off",
                         static_cast<double>(panel.run_begins + needed.count - 1), true});
  return rules;
}

/// " (layer 2 at repeat 242, layer 11 not within 1000)" of the watched run.
std::string fires_text(const PageContext& context) {
  const AttentionResult& panel = context.results.get<AttentionResult>();
  const RepeatRun* run = context.results.run_of(panel.word, panel.condition, false);
  if (run == nullptr || context.results.sinks.empty()) return "";
  std::vector<std::string> parts;
  for (const RepeatsNeeded& needed : repeats_needed(*run, context.results.sinks))
    parts.push_back("layer " + std::to_string(needed.layer) +
                    (needed.count > 0 ? " at repeat " + std::to_string(needed.count)
                                      : " not within " + std::to_string(run->norms[0].size())));
  return " (" + joined_text(parts) + ")";
}

/// Only the layers shown: the patterns of a long run are large.
std::string command_of(const PageContext& context, const std::string& hook) {
  std::string hooks;
  for (const LayerAttention& layer : context.results.get<AttentionResult>().run)
    hooks += (hooks.empty() ? "blocks." : ",blocks.") + std::to_string(layer.layer) + "." + hook;
  return context.run_command(context.results.get<AttentionResult>().condition, 0, hooks);
}

Figure figure_of(const PageContext& context, const std::string& id, const std::string& title,
                 const std::string& caption, Values values, const std::string& y,
                 bool logarithmic) {
  const AttentionResult& panel = context.results.get<AttentionResult>();
  Figure figure{id, title, caption,
                command_of(context, id == "attention_norm" ? "hook_resid_post" : "attn.hook_pattern"),
                {}, context.run_input(panel.condition, 0)};
  figure.plots.push_back(by_position(panel.text, values, "Ordinary text", y, false, logarithmic));
  LineChart run = by_position(panel.run, values,
                              "\"" + panel.word + "\" repeated " + after_text(panel.condition), y, true,
                              logarithmic);
  for (const Rule& rule : run_rules(context)) run.rules.push_back(rule);
  figure.plots.push_back(std::move(run));
  return figure;
}

Figure score_maps(const PageContext& context) {
  const AttentionResult& panel = context.results.get<AttentionResult>();
  Figure figure{"attention_scores", "Scores before softmax, mean over the heads",
                "hook_attn_scores (scaled, causal), mean over the heads: the paper's figure 1. The run is shown "
                "to its end: of a long one every position at the beginning, then in steps that grow. Dotted "
                "lines: where the run begins, and where it sets off a sink" + fires_text(context) +
                    ". All panels have one scale of shades, with zero in the middle.",
                command_of(context, "attn.hook_attn_scores"),
                {}, context.run_input(panel.condition, 0)};
  const auto add = [&](const LayerAttention& layer, const std::string& what,
                       const std::vector<size_t>& positions, const std::vector<Rule>& rules) {
    const std::vector<double> at(positions.begin(), positions.end());
    figure.plots.push_back(HeatMap{"Layer " + std::to_string(layer.layer) + ", " + what, "key position",
                                   "query position", "score", layer.scores, at, at, true, rules});
  };
  std::vector<Rule> rules;
  for (const Rule& rule : run_rules(context)) {
    rules.push_back({rule.name, rule.at, false});
    rules.push_back({"", rule.at, true});
  }
  for (size_t i = 0; i < panel.text.size(); ++i) {
    add(panel.text[i], "ordinary text", panel.text_positions, {});
    if (i < panel.run.size())
      add(panel.run[i], "\"" + panel.word + "\" " + after_text(panel.condition), panel.run_positions, rules);
  }
  share_scale(figure);
  return figure;
}

/// Mean over the queries of 1/(keys that are seen).
double even_share(size_t length) {
  double sum = 0;
  for (size_t q = 1; q <= length; ++q) sum += 1 / static_cast<double>(q);
  return sum / static_cast<double>(length);
}

Section attention_section(const PageContext& context) {
  Section section{"attention",
                  "Where attention goes",
                  "Three separate measurements, because none stands for another: how much "
                  "attention a token gives to position 0, how much to the run itself, and how "
                  "long its own residual vector is. Layers: each sink layer and the next, the "
                  "middle and the last.",
                  {},
                  {}};
  if (context.results.get<AttentionResult>().run.empty()) return section;
  section.figures = {
      figure_of(context, "attention_first", "Attention on position 0",
                "Mean over the heads of the attention pattern A[q, 0].", &LayerAttention::on_first,
                "share of attention", false),
      figure_of(context, "attention_run", "Attention on the run",
                "Mean over the heads of the sum of A[q, k] over the run's positions k <= q. For "
                "ordinary text: over the positions from 1.",
                &LayerAttention::on_body, "share of attention", false),
      figure_of(context, "attention_norm", "Norm of the residual at the same positions",
                "Euclidean norm of hook_resid_post of the layer.", &LayerAttention::norm,
                "residual norm", true),
      score_maps(context)};
  return section;
}

/// The layer in the middle, in a list of those looked at.
const LayerAttention& middle_of(const PageContext& context, const std::vector<LayerAttention>& layers) {
  const size_t middle = context.results.norms.mlp_first.size() / 2;
  return *std::find_if(layers.begin(), layers.end(),
                       [&](const LayerAttention& l) { return l.layer == middle; });
}

Finding attention_finding(const PageContext& context) {
  const AttentionResult& panel = context.results.get<AttentionResult>();
  const LayerAttention &text = middle_of(context, panel.text), &run = middle_of(context, panel.run);
  return {"Where does attention go?",
          "In the middle layer (" + std::to_string(run.layer) + ") the last of " +
              std::to_string(context.usual().repeats) + " repeats of \"" + panel.word + "\" " +
              after_text(panel.condition) + " gives " + percent(run.on_first.back()) +
              " of its attention to position 0 and " + percent(run.on_body.back()) +
              " to the run. A token of ordinary text gives " + percent(mean(text.on_first, 1)) +
              " to position 0.",
          "Means over the heads (and, for the text, over its positions from 1). How this goes with the sink "
          "metric and with repeats that attract attention is said in the section.",
          "attention"};
}

/// How the attention on position 0, the sink metric and the poster's repeats that attract attention
/// are three statements and not one.
std::vector<std::string> attention_remarks(const PageContext& context) {
  const AttentionResult& panel = context.results.get<AttentionResult>();
  std::vector<std::string> remarks;
  const LayerAttention& run = middle_of(context, panel.run);
  const size_t length = run.on_first.size(), repeats = length - panel.run_begins;
  std::string layers;
  for (const LayerAttention& layer : panel.run)
    layers += (layers.empty() ? "" : ", ") + percent(layer.on_body.back()) + " in layer " +
              std::to_string(layer.layer);
  if (panel.run_begins > 0)
    remarks.push_back(
        "Do repeats attract attention, as the paper says? What counts is how much the run draws together and "
        "from which layer. Of the last query's attention the " + std::to_string(repeats) + " repeats draw " +
        layers + ", where attention that is spread evenly would give them " +
        percent(double(repeats) / double(length)) + ". Position 0 is no repeat here: its norm in layer " +
        std::to_string(run.layer) + " is " + plain(run.norm.front()) + ", that of the last repeat " +
        plain(run.norm.back()) +
        ". The paper's picture shows scores before softmax (last figure), in which repeats can stand out "
        "while softmax still gives nearly all to a stronger position 0.");
  if (const Definitions* found = context.results.find<Definitions>()) {
    const bool bos = context.usual().name.starts_with("BOS");
    const SinkMetric &text = found->metrics[0], &repeated = found->metrics[1];
    remarks.push_back(
        "The sink metric is another measurement, on other input: " + std::to_string(repeated.length) +
        " tokens, " + (bos ? "BOS and then one word. " : "all of them one word, with nothing before it. ") +
        percent(repeated.percent / 100) + " of the heads give position 0 more than 30 % there, on ordinary text " +
        percent(text.percent / 100) + ". " +
        (bos ? "Attention sums to one: what the repeats draw, BOS does not get."
             : "There position 0 is itself a repeat: all positions hold the same vector, no score tells them "
               "apart, and attention is spread evenly, on average " +
                   percent(even_share(repeated.length)) + " on position 0."));
  }
  return remarks;
}

}  // namespace

void attention_page(const PageContext& context, Page& page) {
  page.findings.push_back(attention_finding(context));
  page.sections.push_back(attention_section(context));
  page.sections.back().remarks = attention_remarks(context);
}

}  // namespace sinkref
