// Panels 1 and 2: the repeat task, and norms against the number of repeats.

#include <algorithm>
#include <cmath>

#include "measure/section.h"

namespace sinkref {

namespace {

constexpr size_t outcome_kind(Outcome outcome) { return static_cast<size_t>(outcome); }

Grid task_grid(const PageContext& context, const std::string& condition) {
  Grid grid;
  grid.title = "After " + condition;
  grid.x_title = "times the word stood there already";
  grid.kinds = {"goes on repeating (number: words kept of " + std::to_string(continuation_tokens) + ")",
                "stops: end of text", "departs: another token comes first"};
  for (const RepeatRun& run : context.report.runs) {
    if (run.condition != condition || run.continuations.empty()) continue;
    grid.rows.push_back(run.word + (run.patched ? ", patched" : ""));
    grid.columns.clear();
    grid.cells.emplace_back();
    for (const Continuation& c : run.continuations) {
      grid.columns.push_back(std::to_string(c.repeats));
      grid.cells.back().push_back({std::to_string(c.kept), outcome_kind(c.outcome)});
    }
  }
  return grid;
}

LineChart task_probability(const PageContext& context, const std::string& condition) {
  LineChart chart;
  chart.title = "Probability of the word as the next token, after " + condition;
  chart.x = {"repeats so far", true};
  chart.y = {"probability", false};
  for (const RepeatRun& run : context.report.runs) {
    if (run.condition != condition || run.patched || run.continuations.empty()) continue;
    Series series{run.word, {}, {}, chart.series.size(), Series::Mark::line};
    for (const Continuation& c : run.continuations) {
      series.x.push_back(static_cast<double>(c.repeats));
      series.y.push_back(c.probability);
    }
    chart.series.push_back(std::move(series));
  }
  return chart;
}

Table task_table(const PageContext& context) {
  Table table{"What was written instead", {"word", "after", "repeats", "verdict", "continuation"}, {}};
  for (const RepeatRun& run : context.report.runs) {
    if (run.patched) continue;
    for (const Continuation& c : run.continuations)
      table.rows.push_back({run.word, run.condition, std::to_string(c.repeats),
                            outcome_name(c.outcome), context.text(c.generated)});
  }
  return table;
}

LineChart norm_chart(const PageContext& context, const SinkLayer& sink,
                     const std::string& condition) {
  LineChart chart;
  chart.title = "Layer " + std::to_string(sink.layer) + ", after " + condition;
  chart.x = {"repeats of one word", true};
  chart.y = {"residual norm at the last repeat", true};
  for (const RepeatRun& run : context.report.runs)
    if (run.condition == condition && !run.patched)
      chart.series.push_back({run.word, counting(run.norms[sink.layer].size(), 1),
                              run.norms[sink.layer], chart.series.size(), Series::Mark::line});
  chart.rules = norm_rules(sink);
  return chart;
}

/// Every layer at about 40 numbers of repeats: models with several sinks show as several bands.
HeatMap all_layers(const RepeatRun& run) {
  HeatMap map{"Every layer: \"" + run.word + "\" after " + run.condition, "repeats", "layer",
              "log10 of the norm", {}, {}};
  const size_t repeats = run.norms[0].size();
  std::vector<size_t> counts;
  for (double n = 1; n <= static_cast<double>(repeats); n *= 1.19)
    if (counts.empty() || counts.back() != static_cast<size_t>(n))
      counts.push_back(static_cast<size_t>(n));
  if (counts.back() != repeats) counts.push_back(repeats);
  for (size_t n : counts) map.x.push_back(static_cast<double>(n));
  for (const std::vector<double>& norms : run.norms) {
    map.rows.emplace_back();
    for (size_t n : counts) map.rows.back().push_back(std::log10(norms[n - 1]));
  }
  return map;
}

Table needed_table(const PageContext& context) {
  Table table{"Repeats needed",
              {"word", "after", "layer", "half-way", "9/10 of the first token", "norm at the end",
               "largest"},
              {}};
  for (const RepeatRun& run : context.report.runs) {
    if (run.patched) continue;
    for (const RepeatsNeeded& n : repeats_needed(run, context.report.sinks))
      table.rows.push_back({run.word, run.condition, std::to_string(n.layer),
                            count_or_dash(n.count), count_or_dash(n.reached), plain(n.norm_last),
                            plain(n.norm_largest)});
  }
  return table;
}

}  // namespace

Section repeat_task_section(const PageContext& context) {
  Section section{"repeat-task",
                  "1. Does it keep repeating?",
                  "A word is repeated many times, after a request to repeat it where the model "
                  "has one, and the model goes on greedily for " +
                      std::to_string(continuation_tokens) +
                      " tokens. The paper's starting point: asked for endless repeats of a word, "
                      "models sooner or later say something else.",
                  {},
                  {}};
  Figure figure{"repeat_task", "What the model says after n repeats",
                "Rules: repeats = all tokens of the continuation are the word; stops = an "
                "end-of-text token before any other; departs = any other token first.",
                "sinkref generate --model " + context.model + " --tokens IDS --max-new-tokens " +
                    std::to_string(continuation_tokens),
                {}};
  for (const ReportInputs::Condition& condition : context.inputs.conditions) {
    Grid grid = task_grid(context, condition.name);
    if (grid.rows.empty()) continue;
    figure.panels.push_back(std::move(grid));
    figure.panels.push_back(task_probability(context, condition.name));
  }
  if (!figure.panels.empty()) section.figures.push_back(std::move(figure));
  section.tables.push_back(task_table(context));
  return section;
}

Section norms_section(const PageContext& context) {
  const Report& report = context.report;
  Section section{"norms",
                  "2. Norms along a run of one word",
                  "The norm (length) of a token's residual vector after a sink layer, for every "
                  "number of repeats. When a run is long enough, a repeated word is taken for a "
                  "first token and its norm jumps towards the first token's.",
                  {},
                  {}};
  Figure curves{"norm_by_repeats", "Norm at the n-th repeat",
                "Euclidean norm of blocks.L.hook_resid_post. First token: the lone " +
                    context.token_text(context.inputs.sink.lone[0]) +
                    ". Typical: mean over the positions from 1 of ordinary text. Half-way: their "
                    "geometric mean; the first n above it is the number of repeats needed.",
                context.run_command(context.usual().name, 0, "blocks.*.hook_resid_post"),
                {}};
  for (const SinkLayer& sink : report.sinks)
    for (const ReportInputs::Condition& condition : context.inputs.conditions)
      curves.panels.push_back(norm_chart(context, sink, condition.name));
  if (!curves.panels.empty()) section.figures.push_back(std::move(curves));
  Figure layers{"norm_all_layers", "Norms of every layer along the run",
                "log10 of the Euclidean norm of blocks.L.hook_resid_post, first word.",
                context.run_command(context.usual().name, 0, "blocks.*.hook_resid_post"), {}};
  for (const ReportInputs::Condition& condition : context.inputs.conditions)
    if (const RepeatRun* run =
            report.find(context.inputs.sink.words[0].text, condition.name, false))
      layers.panels.push_back(all_layers(*run));
  if (!layers.panels.empty()) section.figures.push_back(std::move(layers));
  if (!report.sinks.empty()) section.tables.push_back(needed_table(context));
  return section;
}

}  // namespace sinkref
