// The paper's patch along the same runs.

#include "measure/patch/panel.h"
#include "page/words.h"

namespace sinkref {

namespace {

LineChart patched_chart(const PageContext& context, const SinkLayer& sink) {
  LineChart chart{"Layer " + std::to_string(sink.layer) + ", after " + context.usual().name,
                  {"repeats of one word", true}, {"residual norm", true}, {}, {}};
  size_t colour = 0;
  for (const SinkInputs::Word& word : context.stimuli().sink.words) {
    for (bool patched : {false, true})
      if (const RepeatRun* run = context.results.run_of(word.text, context.usual().name, patched))
        chart.series.push_back({patched ? "" : word.text, counting(run->norms[sink.layer].size(), 1),
                                run->norms[sink.layer], colour,
                                patched ? Series::Mark::dashed : Series::Mark::line});
    ++colour;
  }
  chart.rules = norm_rules(sink);
  return chart;
}

Section patch_section(const PageContext& context) {
  Section section{"patch", "Does the paper's patch prevent it?",
                  "The patch pins the up_proj output of the sink neurons to its value at position 1. "
                  "The same runs, original (solid) and patched (dashed).",
                  {}, {}};
  Figure figure{"norm_patched", "Norms along the run, original and patched",
                "Euclidean norm of hook_resid_post. Solid: original. Dashed: with the patch " +
                    neurons_text(context.results.patch) +
                    ". The patch leaves the neurons' gates as they are: where the gate alone opens "
                    "wide, the norm may stay.",
                "sinkref sink --model " + context.model() + " --patch-effect --json", {}};
  for (const SinkLayer& sink : context.results.sinks)
    figure.plots.push_back(patched_chart(context, sink));
  section.figures.push_back(std::move(figure));
  Table table{"The next token after the whole run",
              {"word", "original", "probability", "patched", "probability", "total variation"}, {}};
  for (const NextToken& n : context.results.get<NextTokens>().words)
    table.rows.push_back({n.word, context.token_text(n.original), plain(n.original_probability),
                          context.token_text(n.patched), plain(n.patched_probability),
                          plain(n.total_variation)});
  section.tables.push_back(std::move(table));
  return section;
}

Finding patch_finding(const PageContext& context) {
  const Results& results = context.results;
  std::vector<std::string> parts;
  for (size_t i = 0; i < results.sinks.size(); ++i) {
    size_t before = 0, after = 0;
    std::vector<double> ratios;
    for (const SinkInputs::Word& word : context.stimuli().sink.words) {
      const RepeatRun* original = results.run_of(word.text, context.usual().name, false);
      const RepeatRun* patched = results.run_of(word.text, context.usual().name, true);
      if (original == nullptr || patched == nullptr) continue;
      const RepeatsNeeded was = repeats_needed(*original, results.sinks)[i],
                          is = repeats_needed(*patched, results.sinks)[i];
      before += was.count != 0;
      after += is.count != 0;
      ratios.push_back(is.norm_last / was.norm_last);
    }
    parts.push_back("at layer " + std::to_string(results.sinks[i].layer) + " " +
                    std::to_string(before) + " of " + std::to_string(ratios.size()) +
                    " words set it off without and " + std::to_string(after) +
                    " with the patch (norm at the end " + plain(median(ratios)) + " of before)");
  }
  std::string answer = joined_text(parts) + ".";
  answer[0] = 'A';
  return {"Does the paper's patch prevent it?", answer,
          "up_proj of the sink neurons pinned to its value at position 1; median over the words.",
          "patch"};
}

}  // namespace

void patch_page(const PageContext& context, Page& page) {
  if (context.results.find<NextTokens>() == nullptr) return;
  page.findings.push_back(patch_finding(context));
  page.sections.push_back(patch_section(context));
}

}  // namespace sinkref
