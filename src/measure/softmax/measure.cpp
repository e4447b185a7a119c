#include "measure/softmax/panel.h"
#include "model/work.h"

namespace sinkref {

double softmax_work(const Experiment& e, const Results&) {
  const ModelConfig& c = e.model.config();
  const Stimuli::Condition& usual = e.stimuli.usual();
  return sinks_work(e) + prefill_work(c, sink_length, e.stimuli.samples[0].tokens.size()) +
         run_work(c, usual.prefix.size(), usual.repeats, false);
}

void measure_softmax(const Experiment& e, Results& results) {
  const Stimuli::Condition& usual = e.stimuli.usual();
  const double of_run = run_work(e.model.config(), usual.prefix.size(), usual.repeats, false);
  e.progress->step("the other softmax", softmax_work(e, results) - of_run);
  RunOptions run = e.run;
  run.softmax = run.softmax == Softmax::one ? Softmax::standard : Softmax::one;
  SoftmaxWhatIf other;
  other.softmax = run.softmax;
  other.norms = measure_norms(e.model, run, e.stimuli.sink);
  other.sinks = find_sinks(e.model, run, e.stimuli.sink, other.norms);
  const Stimuli::Samples& text = e.stimuli.samples[0];
  other.metric = sink_metric(e.model, run, text.kind, text.tokens);
  other.run = run_words(e.model, run, {e.stimuli.sink.words[0]}, usual.repeats,
                        {usual.name, {}, nullptr, false}, *e.progress)
                  .front();
  results.put(std::move(other));
}

}  // namespace sinkref
