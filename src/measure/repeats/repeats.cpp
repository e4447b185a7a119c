#include "measure/repeats/repeats.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "model/work.h"

namespace sinkref {

namespace {

/// The repeat task of several runs, together as far as the memory reaches.
class RepeatTasks {
 public:
  RepeatTasks(Forward<float>& forward, Hooks<float>& hooks)
      : forward_(forward), hooks_(hooks), room_(caches_at_once(forward.model().config(), 1)) {}

  /// From the cache of the whole run, after each of the points; finish() fills `run`, which must
  /// stay where it is.
  void add(RepeatRun& run, const SinkInputs::Word& word, KvCache<float> whole) {
    const size_t repeats = whole.length - word.prefix.size();
    const std::vector<size_t> points = continuation_points(repeats);
    size_t positions = 0;
    for (size_t n : points) positions += word.prefix.size() + n + continuation_tokens;
    if (positions_ + positions > room_) finish();
    positions_ += positions;
    for (size_t n : points) {
      // The last repeat is run again: its logits are wanted.
      const size_t before = word.prefix.size() + n - 1;
      KvCache<float> cache =
          n == repeats ? std::move(whole) : whole.beginning(before, before + 1 + continuation_tokens);
      cache.length = before;
      batch_.push_back({std::move(cache), {word.token}});
      runs_.push_back(&run);
      run.continuations.push_back({n, {}, 0, Outcome::departs, 0});
    }
  }

  void finish() {
    if (batch_.empty()) return;
    const Matrix<float> logits = forward_.run(batch_, hooks_);
    const std::vector<Greedy> greedy =
        continue_greedily(forward_, batch_, logits, continuation_tokens, hooks_);
    std::map<RepeatRun*, size_t> done;
    for (size_t b = 0; b < batch_.size(); ++b) {
      RepeatRun& run = *runs_[b];
      Continuation& c = run.continuations[done[&run]++];
      c.probability = probabilities(logits.row(b), logits.cols)[static_cast<size_t>(run.token)];
      c.generated = greedy[b].tokens;
      judge(c, run.token, greedy[b].ended);
    }
    batch_.clear();
    runs_.clear();
    positions_ = 0;
  }

 private:
  Forward<float>& forward_;
  Hooks<float>& hooks_;
  size_t room_, positions_ = 0;
  std::vector<Sequence<float>> batch_;
  std::vector<RepeatRun*> runs_;  // of each sequence
};

size_t first_at(const std::vector<double>& norms, const auto& passes) {
  const auto found = std::find_if(norms.begin(), norms.end(), passes);
  return found == norms.end() ? 0 : static_cast<size_t>(found - norms.begin()) + 1;
}

}  // namespace

double run_work(const ModelConfig& config, size_t prefix, size_t repeats, bool continuations) {
  double work = prefill_work(config, prefix + repeats, 1, 0, SIZE_MAX, 1);
  if (continuations)
    work += decode_work(config, continuation_tokens, continuation_points(repeats).size(), repeats) / 3;
  return work;
}

std::vector<RepeatRun> run_words(const Model& model, const RunOptions& options,
                                 const std::vector<SinkInputs::Word>& words, size_t repeats,
                                 const RunPlan& plan, Progress& progress) {
  const ModelConfig& config = model.config();
  std::vector<RepeatRun> runs;
  runs.reserve(words.size());  // the tasks point into it
  RunOptions watched_options = options;
  watched_options.progress = [&](size_t done, size_t all) { progress.share(double(done) / double(all)); };
  Forward<float> forward(model, watched_options), of_tasks(model, options);
  Hooks<float> patch;
  add_patch(plan.patch, patch);
  RepeatTasks tasks(of_tasks, patch);
  for (const SinkInputs::Word& word : words) {
    progress.step(std::to_string(repeats) + " repeats of \"" + word.text + "\" after " + plan.condition +
                      (plan.patch.empty() ? "" : ", patched"),
                  run_work(config, word.prefix.size(), repeats, false));
    RepeatRun& run = runs.emplace_back(
        RepeatRun{word.text, word.token, plan.condition, !plan.patch.empty(), {}, {}, {}});
    std::vector<int> tokens = word.prefix;
    tokens.insert(tokens.end(), repeats, word.token);
    Hooks<float> watched = patch;
    run.norms.resize(config.layers);
    for (size_t layer = 0; layer < run.norms.size(); ++layer)
      keep_norms({HookPoint::ResidPost, layer}, run.norms[layer], watched);
    if (plan.watch && runs.size() == 1) plan.watch(watched);
    std::vector<Sequence<float>> batch;
    batch.push_back(forward.start(std::move(tokens)));
    batch[0].cache.reserve(std::min(batch[0].pending.size() + continuation_tokens, config.max_positions));
    const Matrix<float> logits = forward.run(batch, watched);
    run.next = probabilities(logits.row(0), logits.cols);
    for (std::vector<double>& norms : run.norms)
      norms.erase(norms.begin(), norms.end() - static_cast<long>(repeats));
    if (plan.continuations) tasks.add(run, word, std::move(batch[0].cache));
  }
  if (plan.continuations && !words.empty())
    progress.step("continuations of the runs after " + plan.condition +
                      (plan.patch.empty() ? "" : ", patched"),
                  double(words.size()) * (run_work(config, words[0].prefix.size(), repeats, true) -
                                          run_work(config, words[0].prefix.size(), repeats, false)));
  tasks.finish();
  return runs;
}

RepeatRun run_repeats(const Model& model, const RunOptions& options, const SinkInputs::Word& word,
                      size_t repeats, const RunPlan& plan) {
  Progress nobody;
  return run_words(model, options, {word}, repeats, plan, nobody).front();
}

size_t repeats_to_fire(const SinkLayer& sink, const std::vector<double>& norms) {
  return first_at(norms, [&](double n) { return n > sink.fires_above(); });
}

std::vector<RepeatsNeeded> repeats_needed(const RepeatRun& run,
                                          const std::vector<SinkLayer>& sinks) {
  std::vector<RepeatsNeeded> all;
  for (const SinkLayer& sink : sinks) {
    const std::vector<double>& norms = run.norms[sink.layer];
    all.push_back({sink.layer, repeats_to_fire(sink, norms),
                   first_at(norms, [&](double n) { return n >= 0.9 * sink.norm_first; }),
                   norms.back(), *std::max_element(norms.begin(), norms.end())});
  }
  return all;
}

NextToken compare_next(const RepeatRun& original, const RepeatRun& patched) {
  const std::vector<double>&p = original.next, &q = patched.next;
  NextToken next{original.word, original.token, 0, 0, 0, 0, 0};
  next.original = static_cast<int>(argmax<double>(p));
  next.patched = static_cast<int>(argmax<double>(q));
  next.original_probability = p[static_cast<size_t>(next.original)];
  next.patched_probability = q[static_cast<size_t>(next.patched)];
  for (size_t i = 0; i < p.size(); ++i) next.total_variation += 0.5 * std::fabs(p[i] - q[i]);
  return next;
}

}  // namespace sinkref
