#include "measure/experiment.h"

namespace sinkref {

namespace {

void run_condition(const Experiment& e, const Stimuli::Condition& condition, const RunPlan& plan,
                   Results& results) {
  std::vector<SinkInputs::Word> words = e.stimuli.sink.words;
  for (SinkInputs::Word& word : words) word.prefix = condition.prefix;
  for (RepeatRun& run : run_words(e.model, e.run, words, condition.repeats, plan, e.step))
    results.runs.push_back(std::move(run));
}

}  // namespace

const RepeatRun* Results::run_of(const std::string& word, const std::string& condition,
                                 bool patched) const {
  for (const RepeatRun& run : runs)
    if (run.word == word && run.condition == condition && run.patched == patched) return &run;
  return nullptr;
}

void measure_sinks(const Experiment& e, Results& results) {
  e.step("norms of the first token and of ordinary text, every layer");
  results.norms = measure_norms(e.model, e.run, e.stimuli.sink);
  e.step("sink layers and neurons, by ablation");
  results.sinks = find_sinks(e.model, e.run, e.stimuli.sink, results.norms);
  results.patch = e.stimuli.patch.value_or(neurons_of(results.sinks));
}

void measure_runs(const Experiment& e, bool tasks, const RunPlan::Watch& watch, Results& results) {
  for (const Stimuli::Condition& condition : e.stimuli.conditions)
    run_condition(e, condition,
                  {condition.name, {}, results.runs.empty() ? watch : nullptr,
                   tasks && condition.request},
                  results);
  const Stimuli::Condition& usual = e.stimuli.usual();
  if (!results.patch.empty())
    run_condition(e, usual, {usual.name, results.patch, nullptr, tasks && usual.request}, results);
}

}  // namespace sinkref
