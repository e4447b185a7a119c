// Where attention goes, in ordinary text and along a run. Mass on position 0, mass on the run, and the
// norm are three figures.

#include <algorithm>

#include "measure/attention/panel.h"
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
                {}};
  figure.plots.push_back(by_position(panel.text, values, "Ordinary text", y, false, logarithmic));
  LineChart run = by_position(panel.run, values,
                              "\"" + panel.word + "\" repeated after " + panel.condition, y, true,
                              logarithmic);
  if (panel.run_begins > 1)
    run.rules.push_back({"run begins", static_cast<double>(panel.run_begins), true});
  figure.plots.push_back(std::move(run));
  return figure;
}

Figure score_maps(const PageContext& context) {
  const AttentionResult& panel = context.results.get<AttentionResult>();
  Figure figure{"attention_scores", "Scores before softmax, mean over the heads",
                "hook_attn_scores (scaled, causal), mean over the heads, first " +
                    std::to_string(map_positions) + " positions: the paper's figure 1.",
                command_of(context, "attn.hook_attn_scores"),
                {}};
  const auto add = [&](const LayerAttention& layer, const std::string& what) {
    figure.plots.push_back(HeatMap{"Layer " + std::to_string(layer.layer) + ", " + what,
                                   "key position", "query position", "score", layer.scores, {}});
  };
  for (size_t i = 0; i < panel.text.size(); ++i) {
    add(panel.text[i], "ordinary text");
    if (i < panel.run.size()) add(panel.run[i], "repeats");
  }
  return figure;
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

Finding attention_finding(const PageContext& context) {
  const AttentionResult& panel = context.results.get<AttentionResult>();
  const size_t middle = context.results.norms.mlp_first.size() / 2;
  const auto at = [&](const std::vector<LayerAttention>& layers) {
    return std::find_if(layers.begin(), layers.end(),
                        [&](const LayerAttention& l) { return l.layer == middle; });
  };
  const auto text = at(panel.text), run = at(panel.run);
  return {"Where does attention go?",
          "In the middle layer (" + std::to_string(middle) + ") a token of ordinary text gives " +
              percent(mean(text->on_first, 1)) + " of its attention to position 0. At the end of the run, " +
              percent(run->on_first.back()) + " goes to position 0 and " +
              percent(run->on_body.back()) + " is spread over the run.",
          "Means over the heads (and, for the text, over its positions from 1).", "attention"};
}

}  // namespace

void attention_page(const PageContext& context, Page& page) {
  page.findings.push_back(attention_finding(context));
  page.sections.push_back(attention_section(context));
}

}  // namespace sinkref
