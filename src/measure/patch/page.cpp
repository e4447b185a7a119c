// The paper's patch along the same runs.

#include <algorithm>

#include "measure/patch/panel.h"
#include "page/words.h"

namespace sinkref {

namespace {

/// One word at one sink, original and patched.
LineChart patched_chart(const PageContext& context, const SinkLayer& sink, const SinkInputs::Word& word) {
  LineChart chart{"Layer " + std::to_string(sink.layer) + ", \"" + word.text + "\" " +
                      after_text(context.usual().name),
                  {"repeats of one word", true}, {"residual norm", true}, {}, {}};
  for (bool patched : {false, true})
    if (const RepeatRun* run = context.results.run_of(word.text, context.usual().name, patched))
      chart.series.push_back({patched ? "patched" : "original", counting(run->norms[sink.layer].size(), 1),
                              run->norms[sink.layer], patched ? 1u : 0u,
                              patched ? Series::Mark::dashed : Series::Mark::line});
  chart.rules = norm_rules(sink);
  return chart;
}

Section patch_section(const PageContext& context) {
  Section section{"patch", "Does the paper's patch prevent it?",
                  "The patch pins the up_proj output of the sink neurons to its value at position 1. "
                  "The same runs, original (solid line, filled marks) and patched (dashed, hollow marks).",
                  {}, {}};
  Figure figure{"norm_patched", "Norms along the run, original and patched",
                "Euclidean norm of hook_resid_post, a panel for each sink and word. Patch: " +
                    neurons_text(context.results.patch) +
                    ". The patch leaves the neurons' gates as they are: where the gate alone opens "
                    "wide, the norm may stay.",
                context.study_command("sink", " --patch-effect"), {}};
  for (const SinkLayer& sink : context.results.sinks)
    for (const SinkInputs::Word& word : context.stimuli().sink.words)
      figure.plots.push_back(patched_chart(context, sink, word));
  if (!figure.plots.empty()) section.figures.push_back(std::move(figure));
  Table table{"The next token after the whole run",
              {"word", "original", "probability", "patched", "probability", "total variation"}, {}};
  for (const NextToken& n : context.results.get<NextTokens>().words)
    table.rows.push_back({n.word, context.token_text(n.original), plain(n.original_probability),
                          context.token_text(n.patched), plain(n.patched_probability),
                          plain(n.total_variation)});
  section.tables.push_back(std::move(table));
  return section;
}

/// How the words of the usual condition fared at one sink.
struct Fared {
  size_t words = 0, before = 0, after = 0;
  std::vector<double> ratios;  ///< norm at the end, patched against original

  std::string verdict() const {
    return before == 0      ? "there was nothing to prevent"
           : after == 0     ? "yes"
           : after < before ? "in part"
                            : "no";
  }
};

Fared fared_at(const PageContext& context, size_t sink) {
  const Results& results = context.results;
  Fared fared;
  for (const SinkInputs::Word& word : context.stimuli().sink.words) {
    const RepeatRun* original = results.run_of(word.text, context.usual().name, false);
    const RepeatRun* patched = results.run_of(word.text, context.usual().name, true);
    if (original == nullptr || patched == nullptr) continue;
    const RepeatsNeeded was = repeats_needed(*original, results.sinks)[sink],
                        is = repeats_needed(*patched, results.sinks)[sink];
    ++fared.words;
    fared.before += was.count != 0;
    fared.after += is.count != 0;
    fared.ratios.push_back(is.norm_last / was.norm_last);
  }
  return fared;
}

/// A patch that was asked for, on a model in which there is nothing to prevent.
std::string changed_text(const PageContext& context) {
  double least = 1, most = 0;
  for (const NextToken& next : context.results.get<NextTokens>().words) {
    least = std::min(least, next.total_variation);
    most = std::max(most, next.total_variation);
  }
  return "There is no sink, so there is nothing to prevent. The patch " + neurons_text(context.results.patch) +
         " moves the next token's distribution after the runs " + after_text(context.usual().name) +
         " by a total variation of " + plain(least) + " to " + plain(most) + ".";
}

Finding patch_finding(const PageContext& context) {
  const std::vector<SinkLayer>& sinks = context.results.sinks;
  std::vector<std::string> parts;
  for (size_t i = 0; i < sinks.size(); ++i) {
    const Fared fared = fared_at(context, i);
    parts.push_back("at layer " + std::to_string(sinks[i].layer) + " " + fared.verdict() + ": " +
                    std::to_string(fared.before) + " of " + std::to_string(fared.words) +
                    " words set it off without and " + std::to_string(fared.after) +
                    " with the patch (norm at the end " + plain(median(fared.ratios)) + " of before)");
  }
  return {"Does the paper's patch prevent it?",
          sinks.empty() ? changed_text(context)
                        : sentence("run " + after_text(context.usual().name) + ", " + listed_text(parts)),
          "up_proj of the neurons " + neurons_text(context.results.patch) +
              " pinned to its value at position 1; median over the words.",
          "patch"};
}

}  // namespace

void patch_page(const PageContext& context, Page& page) {
  if (context.results.find<NextTokens>() == nullptr) return;
  page.findings.push_back(patch_finding(context));
  page.sections.push_back(patch_section(context));
}

}  // namespace sinkref
