// Panel 6: the paper's patch along the same runs.

#include <algorithm>

#include "measure/section.h"

namespace sinkref {

namespace {

LineChart patched_chart(const PageContext& context, const SinkLayer& sink) {
  LineChart chart{"Layer " + std::to_string(sink.layer) + ", after " + context.usual().name,
                  {"repeats of one word", true}, {"residual norm", true}, {}, {}};
  size_t colour = 0;
  for (const SinkInputs::Word& word : context.inputs.sink.words) {
    for (bool patched : {false, true})
      if (const RepeatRun* run = context.report.find(word.text, context.usual().name, patched))
        chart.series.push_back({patched ? "" : word.text, counting(run->norms[sink.layer].size(), 1),
                                run->norms[sink.layer], colour,
                                patched ? Series::Mark::dashed : Series::Mark::line});
    ++colour;
  }
  chart.rules = norm_rules(sink);
  return chart;
}

/// What else can be pinned, along one run.
Table variants_table(const PageContext& context, const RunEffects& run) {
  Table table{run.name + ": what can be pinned (" + std::to_string(run.length) + " tokens)",
              {"intervention", "sink layer", "repeats needed", "norm at the end", "likeliest next token",
               "words kept", "total variation"}, {}};
  for (size_t i = 0; i < run.effects.size(); ++i) {
    const RunEffect& e = run.effects[i];
    for (const RunNorms& sink : e.sinks)
      table.rows.push_back({interventions[i].name, std::to_string(sink.layer), count_or_dash(sink.count),
                            plain(sink.norms.back()),
                            e.next.empty() ? "–" : context.token_text(e.next[0].token) + " (" +
                                                       plain(e.next[0].probability) + ")",
                            std::to_string(e.kept), plain(e.total_variation)});
  }
  return table;
}

/// gate and up of the patched neurons: which of the two is the switch.
Table neurons_table(const RunEffects& run) {
  Table table{run.name + ": the patched neurons",
              {"layer", "neuron", "where", "gate", "up", "silu(gate)·up", "adds (norm)"}, {}};
  const auto add = [&](const NeuronValue& n, const std::string& where) {
    table.rows.push_back({std::to_string(n.layer), std::to_string(n.neuron), where, plain(n.gate),
                          plain(n.up), plain(n.post), plain(n.added)});
  };
  for (size_t n = 0; n < run.first.size(); ++n) {
    add(run.first[n], "position 0");
    add(run.second[n], "position 1, what is pinned");
    for (size_t i = 0; i < run.effects.size(); ++i)
      add(run.effects[i].neurons[n], std::string("last of the run, ") + interventions[i].name);
  }
  return table;
}

Table attention_table(const RunEffects& run) {
  Table table{run.name + ": attention of the last token, mean over the heads",
              {"intervention", "layer", "on position 0", "on the run"}, {}};
  for (size_t i = 0; i < run.effects.size(); ++i)
    for (const RunAttention& a : run.effects[i].attention)
      table.rows.push_back({interventions[i].name, std::to_string(a.layer), percent(a.on_first),
                            percent(a.on_run)});
  return table;
}

Table text_table(const PatchEffect& effect) {
  Table table{"Ordinary text (" + std::to_string(effect.predicted) + " tokens predicted)",
              {"intervention", "perplexity", "standard error", "difference of the loss", "its standard error",
               "mean KL", "argmax changed"}, {}};
  for (size_t i = 0; i < effect.text.size(); ++i) {
    const TextEffect& e = effect.text[i];
    table.rows.push_back({interventions[i].name, plain(e.perplexity), plain(e.perplexity_error),
                          plain(e.difference), plain(e.difference_error), plain(e.kl_mean),
                          percent(e.argmax_changed)});
  }
  return table;
}

}  // namespace

Section patch_section(const PageContext& context) {
  Section section{"patch", "6. Does the paper's patch prevent it?",
                  "The patch pins the up_proj output of the sink neurons to its value at position 1. "
                  "The same runs, original (solid) and patched (dashed).",
                  {}, {}};
  Figure figure{"norm_patched", "Norms along the run, original and patched",
                "Euclidean norm of hook_resid_post. Solid: original. Dashed: with the patch " +
                    neurons_text(context.report.patch) +
                    ". The patch leaves the neurons' gates as they are: where the gate alone opens "
                    "wide, the norm may stay.",
                "sinkref sink --model " + context.model + " --patch-effect --json", {}};
  for (const SinkLayer& sink : context.report.sinks)
    figure.panels.push_back(patched_chart(context, sink));
  section.figures.push_back(std::move(figure));
  Table table{"The next token after the whole run",
              {"word", "original", "probability", "patched", "probability", "total variation"}, {}};
  for (const NextToken& n : context.report.next)
    table.rows.push_back({n.word, context.token_text(n.original), plain(n.original_probability),
                          context.token_text(n.patched), plain(n.patched_probability),
                          plain(n.total_variation)});
  section.tables.push_back(std::move(table));
  if (context.report.patch_effect) {
    for (const RunEffects& run : context.report.patch_effect->runs) {
      section.tables.push_back(variants_table(context, run));
      section.tables.push_back(attention_table(run));
      section.tables.push_back(neurons_table(run));
    }
    section.tables.push_back(text_table(*context.report.patch_effect));
  }
  return section;
}

Finding patch_finding(const PageContext& context) {
  const Report& report = context.report;
  std::vector<std::string> parts;
  for (size_t i = 0; i < report.sinks.size(); ++i) {
    size_t before = 0, after = 0;
    std::vector<double> ratios;
    for (const SinkInputs::Word& word : context.inputs.sink.words) {
      const RepeatRun* original = report.find(word.text, context.usual().name, false);
      const RepeatRun* patched = report.find(word.text, context.usual().name, true);
      if (original == nullptr || patched == nullptr) continue;
      const RepeatsNeeded was = repeats_needed(*original, report.sinks)[i],
                          is = repeats_needed(*patched, report.sinks)[i];
      before += was.count != 0;
      after += is.count != 0;
      ratios.push_back(is.norm_last / was.norm_last);
    }
    parts.push_back("at layer " + std::to_string(report.sinks[i].layer) + " " +
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

}  // namespace sinkref
