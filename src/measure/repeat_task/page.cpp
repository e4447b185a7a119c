#include "measure/repeat_task/panel.h"
#include "page/words.h"

namespace sinkref {

namespace {

constexpr size_t outcome_kind(Outcome outcome) { return static_cast<size_t>(outcome); }

Grid task_grid(const PageContext& context, const std::string& condition) {
  Grid grid;
  grid.title = "After " + condition;
  grid.x_title = "times the word stood there already";
  grid.kinds = {"goes on repeating (number: words kept of " + std::to_string(continuation_tokens) + ")",
                "stops: end of text", "departs: another token comes first"};
  for (const RepeatRun& run : context.results.runs) {
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
  chart.title = "Probability of the word as the next token, " + after_text(condition);
  chart.x = {"repeats so far", true};
  chart.y = {"probability", false};
  for (const RepeatRun& run : context.results.runs) {
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
  Table table{"What was written instead", {"word", "after", "repeats", "verdict", "continuation"}, {}, true};
  for (const RepeatRun& run : context.results.runs) {
    if (run.patched) continue;
    for (const Continuation& c : run.continuations)
      table.rows.push_back({run.word, run.condition, std::to_string(c.repeats),
                            outcome_name(c.outcome), context.text(c.generated)});
  }
  return table;
}

Section task_section(const PageContext& context) {
  Section section{"repeat-task",
                  "Does it keep repeating?",
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
                "", {}};
  for (const Stimuli::Condition& condition : context.stimuli().conditions) {
    Grid grid = task_grid(context, condition.name);
    if (grid.rows.empty()) continue;
    figure.plots.push_back(std::move(grid));
    if (figure.command.empty()) {
      figure.command = context.model_command("generate", context.run_tokens(condition.name, 0),
                                             " --max-new-tokens " + std::to_string(continuation_tokens));
      figure.input = context.run_input(condition.name, 0);
    }
    figure.plots.push_back(task_probability(context, condition.name));
  }
  if (!figure.plots.empty()) section.figures.push_back(std::move(figure));
  section.tables.push_back(task_table(context));
  return section;
}

Finding task_finding(const PageContext& context) {
  std::vector<std::string> parts;
  for (const Stimuli::Condition& condition : context.stimuli().conditions) {
    if (!condition.request) continue;
    std::vector<size_t> points = continuation_points(condition.repeats);
    if (points.size() > 1) points = {points.front(), points.back()};
    std::vector<std::string> counts;
    for (size_t n : points) {
      size_t prompts = 0, kept = 0;
      for (const RepeatRun& run : context.results.runs)
        for (const Continuation& c : run.continuations)
          if (run.condition == condition.name && !run.patched && c.repeats == n) {
            ++prompts;
            kept += c.outcome == Outcome::repeats;
          }
      if (prompts > 0)
        counts.push_back(std::to_string(kept) + " of " + std::to_string(prompts) + " prompts after " +
                         std::to_string(n) + " repeats");
    }
    if (!counts.empty()) parts.push_back(after_text(condition.name) + " in " + joined_text(counts));
  }
  return {"Asked to repeat a word, does the model go on repeating it?",
          parts.empty() ? "No prompt with a request was run." : "It does " + listed_text(parts) + ".",
          "Greedy continuation of " + std::to_string(continuation_tokens) +
              " tokens; all must be the word.",
          "repeat-task"};
}

}  // namespace

void repeat_task_page(const PageContext& context, Page& page) {
  page.findings.push_back(task_finding(context));
  page.sections.push_back(task_section(context));
}

}  // namespace sinkref
