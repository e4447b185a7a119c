#include "measure/attention/panel.h"
#include "model/work.h"

namespace sinkref {

namespace {

std::vector<size_t> chosen_layers(const Experiment& e, const Results& results) {
  return attention_layers(layers_of(results.sinks), e.model.config().layers);
}

}  // namespace

void watch_attention(const Experiment& e, Results& results, Hooks<float>& hooks) {
  const Stimuli::Condition& usual = e.stimuli.usual();
  // In `results`, where the run finds it.
  results
      .put(attention_masses(chosen_layers(e, results), usual.prefix.size(), e.model.config().heads,
                           usual.prefix.size() + usual.repeats))
      .attach(hooks);
}

void measure_attention(const Experiment& e, Results& results) {
  e.progress->step("attention in ordinary text", attention_work(e, results));
  const std::vector<int>& text = e.stimuli.sink.text;
  AttentionMasses masses = attention_masses(chosen_layers(e, results), 1, e.model.config().heads, text.size());
  Hooks<float> hooks;
  masses.attach(hooks);
  sinkref::run(e.model, e.run, {text}, hooks);
  const Stimuli::Condition& usual = e.stimuli.usual();
  const AttentionMasses& run = results.get<AttentionMasses>();
  results.put(AttentionResult{masses.layers, run.layers, masses.score_positions, run.score_positions,
                              e.stimuli.sink.words[0].text, usual.name, usual.prefix.size()});
}

double attention_work(const Experiment& e, const Results&) {
  return prefill_work(e.model.config(), e.stimuli.sink.text.size());
}

}  // namespace sinkref
