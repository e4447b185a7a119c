// Norms against the number of repeats.

#include <algorithm>
#include <cmath>

#include "measure/repeats/panel.h"
#include "page/words.h"

namespace sinkref {

namespace {

LineChart norm_chart(const PageContext& context, const SinkLayer& sink,
                     const std::string& condition) {
  LineChart chart;
  chart.title = "Layer " + std::to_string(sink.layer) + ", after " + condition;
  chart.x = {"repeats of one word", true};
  chart.y = {"residual norm at the last repeat", true};
  for (const RepeatRun& run : context.results.runs)
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
  for (const RepeatRun& run : context.results.runs) {
    if (run.patched) continue;
    for (const RepeatsNeeded& n : repeats_needed(run, context.results.sinks))
      table.rows.push_back({run.word, run.condition, std::to_string(n.layer),
                            count_or_dash(n.count), count_or_dash(n.reached), plain(n.norm_last),
                            plain(n.norm_largest)});
  }
  return table;
}

Section norms_section(const PageContext& context) {
  const Results& results = context.results;
  Section section{"norms",
                  "Norms along a run of one word",
                  "The norm (length) of a token's residual vector after a sink layer, for every "
                  "number of repeats. When a run is long enough, a repeated word is taken for a "
                  "first token and its norm jumps towards the first token's.",
                  {},
                  {}};
  Figure curves{"norm_by_repeats", "Norm at the n-th repeat",
                "Euclidean norm of blocks.L.hook_resid_post. First token: the lone " +
                    context.token_text(context.stimuli().sink.lone[0]) +
                    ". Typical: mean over the positions from 1 of ordinary text. Half-way: their "
                    "geometric mean; the first n above it is the number of repeats needed.",
                context.run_command(context.usual().name, 0, "blocks.*.hook_resid_post"),
                {}};
  for (const SinkLayer& sink : results.sinks)
    for (const Stimuli::Condition& condition : context.stimuli().conditions)
      curves.plots.push_back(norm_chart(context, sink, condition.name));
  if (!curves.plots.empty()) section.figures.push_back(std::move(curves));
  Figure layers{"norm_all_layers", "Norms of every layer along the run",
                "log10 of the Euclidean norm of blocks.L.hook_resid_post, first word.",
                context.run_command(context.usual().name, 0, "blocks.*.hook_resid_post"), {}};
  for (const Stimuli::Condition& condition : context.stimuli().conditions)
    if (const RepeatRun* run =
            results.run_of(context.stimuli().sink.words[0].text, condition.name, false))
      layers.plots.push_back(all_layers(*run));
  if (!layers.plots.empty()) section.figures.push_back(std::move(layers));
  if (!results.sinks.empty()) section.tables.push_back(needed_table(context));
  return section;
}

Finding repeats_finding(const PageContext& context) {
  const Results& results = context.results;
  const std::string& condition = context.usual().name;
  std::vector<std::string> parts;
  for (size_t i = 0; i < results.sinks.size(); ++i) {
    std::vector<size_t> counts;
    size_t words = 0;
    for (const RepeatRun& run : results.runs) {
      if (run.condition != condition || run.patched) continue;
      ++words;
      const size_t count = repeats_needed(run, results.sinks)[i].count;
      if (count != 0) counts.push_back(count);
    }
    const std::string layer = "layer " + std::to_string(results.sinks[i].layer);
    if (counts.empty()) {
      parts.push_back("at " + layer + " not within " + std::to_string(context.usual().repeats) +
                      " repeats");
      continue;
    }
    const auto [least, most] = std::minmax_element(counts.begin(), counts.end());
    parts.push_back("at " + layer + " after " + std::to_string(*least) +
                    (least == most || *least == *most ? "" : " to " + std::to_string(*most)) +
                    " repeats (" + std::to_string(counts.size()) + " of " + std::to_string(words) +
                    " words)");
  }
  return {"Does a long run of one word come to look like a first token?",
          sentence(results.sinks.empty() ? "there is no sink that it could set off"
                                        : joined_text(parts)),
          "First repeat whose norm passes the geometric mean of ordinary text and first token; the "
          "run stands after " + condition + ".",
          "norms"};
}

}  // namespace

void repeats_page(const PageContext& context, Page& page) {
  page.findings.push_back(repeats_finding(context));
  page.sections.push_back(norms_section(context));
}

}  // namespace sinkref
