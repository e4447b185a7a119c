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
  chart.title = "Layer " + std::to_string(sink.layer) + ", " + after_text(condition);
  chart.x = {"repeats of one word", true};
  chart.y = {"residual norm at the last repeat", true};
  for (const RepeatRun& run : context.results.runs) {
    if (run.condition != condition || run.patched) continue;
    const std::vector<double>& norms = run.norms[sink.layer];
    const size_t colour = chart.series.size();
    chart.series.push_back({run.word, counting(norms.size(), 1), norms, colour, Series::Mark::line});
    if (const size_t count = repeats_to_fire(sink, norms); count != 0)
      chart.marks.push_back({run.word, {double(count)}, {sink.fires_above()}, colour, Series::Mark::dots});
  }
  chart.rules = norm_rules(sink);
  return chart;
}

/// Every layer at about 40 numbers of repeats: models with several sinks show as several bands.
HeatMap all_layers(const RepeatRun& run) {
  HeatMap map{"Every layer: \"" + run.word + "\" " + after_text(run.condition), "repeats", "layer",
              "log10 of the norm", {}};
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
                    "geometric mean; the first n above it is the number of repeats needed. A mark of the word's "
                    "shape on the half-way line is there.",
                context.run_command(context.usual().name, 0, "blocks.*.hook_resid_post"),
                {}, context.run_input(context.usual().name, 0)};
  for (const SinkLayer& sink : results.sinks)
    for (const Stimuli::Condition& condition : context.stimuli().conditions)
      curves.plots.push_back(norm_chart(context, sink, condition.name));
  if (!curves.plots.empty()) section.figures.push_back(std::move(curves));
  Figure layers{"norm_all_layers", "Norms of every layer along the run",
                "log10 of the Euclidean norm of blocks.L.hook_resid_post, first word. All panels have "
                "one scale of shades.",
                context.run_command(context.usual().name, 0, "blocks.*.hook_resid_post"), {},
                context.run_input(context.usual().name, 0)};
  for (const Stimuli::Condition& condition : context.stimuli().conditions)
    if (const RepeatRun* run =
            results.run_of(context.stimuli().sink.words[0].text, condition.name, false))
      layers.plots.push_back(all_layers(*run));
  share_scale(layers);
  if (!layers.plots.empty()) section.figures.push_back(std::move(layers));
  if (!results.sinks.empty()) section.tables.push_back(needed_table(context));
  return section;
}

/// "4 of 5 words, at 62, 75, 110 and 242" of one condition at one sink; "none of 5 words within 1000
/// repeats" where none does.
std::string fired_text(const PageContext& context, const Stimuli::Condition& condition, size_t sink) {
  std::vector<size_t> counts;
  size_t words = 0;
  for (const RepeatRun& run : context.results.runs) {
    if (run.condition != condition.name || run.patched) continue;
    ++words;
    const size_t count = repeats_needed(run, context.results.sinks)[sink].count;
    if (count != 0) counts.push_back(count);
  }
  std::sort(counts.begin(), counts.end());
  const std::string of = " of " + std::to_string(words) + (words == 1 ? " word" : " words");
  if (counts.empty())
    return "none" + of + " within " + std::to_string(condition.repeats) + " repeats";
  constexpr size_t listed = 6;
  std::string at;
  if (counts.front() == counts.back()) {
    at = std::to_string(counts.front());
  } else if (counts.size() > listed) {
    at = std::to_string(counts.front()) + " to " + std::to_string(counts.back());
  } else {
    std::vector<std::string> all;
    for (size_t count : counts) all.push_back(std::to_string(count));
    at = joined_text(all);
  }
  return std::to_string(counts.size()) + of + ", at " + at;
}

/// Every beginning is told: they differ.
Finding repeats_finding(const PageContext& context) {
  const Results& results = context.results;
  std::string answer;
  for (size_t i = 0; i < results.sinks.size(); ++i) {
    std::vector<std::string> parts;
    for (const Stimuli::Condition& condition : context.stimuli().conditions)
      parts.push_back(after_text(condition.name) + " by " + fired_text(context, condition, i));
    answer += (answer.empty() ? "" : " ") +
              sentence("layer " + std::to_string(results.sinks[i].layer) + " is set off " +
                       listed_text(parts));
  }
  if (answer.empty()) answer = "There is no sink that it could set off.";
  return {"Does a long run of one word come to look like a first token?", answer,
          "First repeat whose norm passes the geometric mean of ordinary text and first token. Without "
          "anything before it a run is a first token at once: every repeat equals the lone token.",
          "norms"};
}

}  // namespace

void repeats_page(const PageContext& context, Page& page) {
  page.findings.push_back(repeats_finding(context));
  page.sections.push_back(norms_section(context));
}

}  // namespace sinkref
