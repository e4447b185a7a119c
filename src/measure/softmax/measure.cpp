#include "measure/softmax/panel.h"

namespace sinkref {

void measure_softmax(const Experiment& e, Results& results) {
  e.step("the other softmax");
  RunOptions run = e.run;
  run.softmax = run.softmax == Softmax::one ? Softmax::standard : Softmax::one;
  SoftmaxWhatIf other;
  other.softmax = run.softmax;
  other.norms = measure_norms(e.model, run, e.stimuli.sink);
  other.sinks = find_sinks(e.model, run, e.stimuli.sink, other.norms);
  const Stimuli::Samples& text = e.stimuli.samples[0];
  other.metric = sink_metric(e.model, run, text.kind, text.tokens);
  const Stimuli::Condition& usual = e.stimuli.usual();
  other.run = run_repeats(e.model, run, e.stimuli.sink.words[0], usual.repeats,
                          {usual.name, {}, nullptr, false});
  results.put(std::move(other));
}

}  // namespace sinkref
