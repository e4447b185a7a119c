#include "measure/experiment.h"

#include "model/work.h"

namespace sinkref {

namespace {

void run_condition(const Experiment& e, const Stimuli::Condition& condition, const RunPlan& plan,
                   std::vector<RepeatRun>& runs) {
  std::vector<SinkInputs::Word> words = e.stimuli.sink.words;
  for (SinkInputs::Word& word : words) word.prefix = condition.prefix;
  runs = run_words(e.model, e.run, words, condition.repeats, plan, *e.progress);
}

}  // namespace

const RepeatRun* Results::run_of(const std::string& word, const std::string& condition,
                                 bool patched) const {
  for (const RepeatRun& run : runs)
    if (run.word == word && run.condition == condition && run.patched == patched) return &run;
  return nullptr;
}

double sinks_work(const Experiment& e) {
  const ModelConfig& c = e.model.config();
  // One sink, in the middle, is assumed: two rankings of ten, each ablated alone and some together.
  return prefill_work(c, 1) + prefill_work(c, e.stimuli.sink.text.size()) +
         50 * prefill_work(c, 1, 1, 0, c.layers / 2);
}

void measure_sinks(const Experiment& e, Kept& kept, Results& results) {
  const auto measure = [&] {
    const double norms = prefill_work(e.model.config(), e.stimuli.sink.text.size() + 1);
    e.progress->step("norms of the first token and of ordinary text, every layer", norms);
    results.norms = measure_norms(e.model, e.run, e.stimuli.sink);
    e.progress->step("sink layers and neurons, by ablation", sinks_work(e) - norms);
    results.sinks = find_sinks(e.model, e.run, e.stimuli.sink, results.norms);
  };
  kept_stage(kept, "sinks", measure, results.norms, results.sinks);
  results.patch = e.stimuli.patch.value_or(neurons_of(results.sinks));
}

namespace {

/// The runs of one condition, and of the usual one with the patch.
struct PlannedRuns {
  const Stimuli::Condition* condition;
  bool patched, continuations;
};

std::vector<PlannedRuns> planned_runs(const Experiment& e, const Results& results, bool tasks) {
  std::vector<PlannedRuns> all;
  for (const Stimuli::Condition& condition : e.stimuli.conditions)
    all.push_back({&condition, false, tasks && condition.request});
  const Stimuli::Condition& usual = e.stimuli.usual();
  if (!results.patch.empty()) all.push_back({&usual, true, tasks && usual.request});
  return all;
}

double work_of(const Experiment& e, const PlannedRuns& runs) {
  return double(e.stimuli.sink.words.size()) *
         run_work(e.model.config(), runs.condition->prefix.size(), runs.condition->repeats,
                  runs.continuations);
}

}  // namespace

double runs_work(const Experiment& e, const Results& results, bool tasks) {
  double work = 0;
  for (const PlannedRuns& runs : planned_runs(e, results, tasks)) work += work_of(e, runs);
  return work;
}

void measure_runs(const Experiment& e, bool tasks, const RunsWatch& watch, Kept& kept, Results& results) {
  const std::vector<PlannedRuns> all = planned_runs(e, results, tasks);
  for (size_t i = 0; i < all.size(); ++i) {
    const PlannedRuns& planned = all[i];
    std::vector<RepeatRun> runs;
    std::string watched;
    bool measured = false;
    const auto measure = [&] {
      measured = true;
      run_condition(e, *planned.condition,
                    {planned.condition->name, planned.patched ? results.patch : std::vector<Neurons>(),
                     i == 0 ? watch.watch : nullptr, planned.continuations},
                    runs);
      if (i == 0 && watch.save) watched = watch.save();
    };
    kept_stage(kept, "runs-" + std::to_string(i), measure, runs, watched);
    if (!measured) e.progress->skip(work_of(e, planned));
    if (i == 0 && !measured && watch.load) watch.load(watched);
    for (RepeatRun& run : runs) results.runs.push_back(std::move(run));
  }
}

}  // namespace sinkref
