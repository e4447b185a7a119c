#include "measure/attention/panel.h"

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
      .put(AttentionMasses(chosen_layers(e, results), usual.prefix.size(), e.model.config().heads,
                           usual.prefix.size() + usual.repeats))
      .attach(hooks);
}

void measure_attention(const Experiment& e, Results& results) {
  e.step("attention in ordinary text");
  const std::vector<int>& text = e.stimuli.sink.text;
  AttentionMasses masses(chosen_layers(e, results), 1, e.model.config().heads, text.size());
  Hooks<float> hooks;
  masses.attach(hooks);
  run(e.model, e.run, {text}, hooks);
  const Stimuli::Condition& usual = e.stimuli.usual();
  results.put(AttentionResult{masses.layers(), results.get<AttentionMasses>().layers(),
                              e.stimuli.sink.words[0].text, usual.name, usual.prefix.size()});
}

}  // namespace sinkref
