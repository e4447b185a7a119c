// What else can be pinned, in the section of the patch.

#include "measure/patch_effect/panel.h"
#include "page/words.h"

namespace sinkref {

namespace {

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
              {"layer", "neuron", "where", "gate", "up", "silu(gate)·up", "adds (norm)"}, {}, true};
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

/// What still sets a sink off, of every word.
Table words_table(const PageContext& context, const PatchEffect& effect) {
  Table table{"Repeats needed of every word " + after_text(context.usual().name) +
                  ", by what is pinned (– : not within " + std::to_string(context.usual().repeats) + ")",
              {"word", "sink layer"}, {}};
  for (const Intervention& intervention : interventions) table.head.push_back(intervention.name);
  for (const WordEffect& word : effect.words)
    for (size_t s = 0; s < context.results.sinks.size(); ++s) {
      table.rows.push_back({word.word, std::to_string(context.results.sinks[s].layer)});
      for (const std::vector<WordAtSink>& sinks : word.sinks)
        table.rows.back().push_back(count_or_dash(sinks[s].count));
    }
  return table;
}

/// "layer 11 is set off by no word and layer 2 by "Another" (at 295)" of one intervention.
std::string still_fires(const PageContext& context, const PatchEffect& effect, size_t intervention) {
  std::vector<std::string> parts;
  for (size_t s = 0; s < context.results.sinks.size(); ++s) {
    std::vector<std::string> words;
    for (const WordEffect& word : effect.words)
      if (const size_t count = word.sinks[intervention][s].count; count != 0)
        words.push_back("\"" + word.word + "\" (at " + std::to_string(count) + ")");
    parts.push_back("layer " + std::to_string(context.results.sinks[s].layer) + (s == 0 ? " is set off by " : " by ") +
                    (words.empty() ? "no word" : joined_text(words)));
  }
  return joined_text(parts);
}

constexpr const char* pinned_names[] = {"nothing", "up", "the gate", "both", "the neurons ablated everywhere"};
static_assert(std::size(pinned_names) == intervention_count);

/// Which words still set a sink off under what else can be pinned, and what that costs.
Finding sites_finding(const PageContext& context, const PatchEffect& effect) {
  std::string answer;
  for (size_t i = 2; i < intervention_count; ++i)
    answer += (answer.empty() ? "" : " ") +
              sentence(std::string("with ") + pinned_names[i] + (interventions[i].ablate ? ", " : " pinned, ") +
                       still_fires(context, effect, i));
  std::vector<std::string> costs;
  for (size_t i = 0; i < effect.text.size(); ++i)
    costs.push_back(plain(effect.text[i].perplexity) + " (" + pinned_names[i] + ")");
  return {"Which words still set it off when something else is pinned?", answer,
          "The same neurons, every word " + after_text(context.usual().name) + ", " +
              std::to_string(context.usual().repeats) + " repeats.",
          "patch", costs.empty() ? "" : "perplexity of ordinary text " + joined_text(costs) + "."};
}

}  // namespace

void patch_effect_page(const PageContext& context, Page& page) {
  const PatchEffect* effect = context.results.find<PatchEffect>();
  if (effect == nullptr) return;
  std::vector<Table>& tables = page.section("patch").tables;
  if (!effect->words.empty()) {
    page.findings.push_back(sites_finding(context, *effect));
    tables.push_back(words_table(context, *effect));
  }
  for (const RunEffects& run : effect->runs) {
    tables.push_back(variants_table(context, run));
    tables.push_back(attention_table(run));
    tables.push_back(neurons_table(run));
  }
  tables.push_back(text_table(*effect));
}

}  // namespace sinkref
