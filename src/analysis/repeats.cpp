#include "sinkref/repeats.h"

#include <algorithm>
#include <cmath>

namespace sinkref {

namespace {

/// Continues greedily after n repeats, whose keys and values the cache still holds.
Continuation continue_after(size_t n, const SinkInputs::Word& word, Forward<float>& forward,
                            std::vector<Sequence<float>>& batch, Hooks<float>& hooks) {
  const std::vector<int>& eos = forward.model().config().eos_ids;
  const size_t start = word.prefix.size() + n;
  const size_t room = forward.model().config().max_positions - start;
  batch[0].cache.length = start - 1;  // the last repeat is run again: its logits are wanted
  batch[0].pending = {word.token};
  Continuation continuation;
  continuation.repeats = n;
  bool ended = false, prompt = true;
  while (!ended && continuation.generated.size() < continuation_tokens) {
    const Matrix<float> logits = forward.run(batch, hooks, prompt);
    if (prompt)
      continuation.probability =
          probabilities(logits.row(0), logits.cols)[static_cast<size_t>(word.token)];
    prompt = false;
    const int token = static_cast<int>(argmax<float>({logits.row(0), logits.cols}));
    ended = std::find(eos.begin(), eos.end(), token) != eos.end();
    if (ended) break;
    continuation.generated.push_back(token);
    if (continuation.generated.size() > room) break;  // the context is full
    batch[0].pending = {token};
  }
  judge(continuation, word.token, ended);
  return continuation;
}

size_t first_at(const std::vector<double>& norms, const auto& passes) {
  const auto found = std::find_if(norms.begin(), norms.end(), passes);
  return found == norms.end() ? 0 : static_cast<size_t>(found - norms.begin()) + 1;
}

}  // namespace

RepeatRun run_repeats(const Model& model, const RunOptions& options, const SinkInputs::Word& word,
                      size_t repeats, const RunPlan& plan) {
  RepeatRun run{word.text, word.token, plan.condition, !plan.patch.empty(), {}, {}, {}};
  std::vector<int> tokens = word.prefix;
  tokens.insert(tokens.end(), repeats, word.token);
  Forward<float> forward(model, options);
  Hooks<float> patch;
  add_patch(plan.patch, patch);
  Hooks<float> watched = patch;  // shares what the patch keeps of position 1
  run.norms.resize(model.config().layers);
  for (size_t layer = 0; layer < run.norms.size(); ++layer)
    keep_norms({HookPoint::ResidPost, layer}, run.norms[layer], watched);
  if (plan.attention != nullptr) plan.attention->attach(watched);
  std::vector<Sequence<float>> batch;
  batch.push_back(forward.start(std::move(tokens)));
  const Matrix<float> logits = forward.run(batch, watched);
  run.next = probabilities(logits.row(0), logits.cols);
  for (std::vector<double>& norms : run.norms)
    norms.erase(norms.begin(), norms.end() - static_cast<long>(repeats));
  if (plan.continuations) {
    // From the longest down: a continuation overwrites only what no shorter run needs.
    std::vector<size_t> points = continuation_points(repeats);
    for (size_t i = points.size(); i-- > 0;)
      run.continuations.push_back(continue_after(points[i], word, forward, batch, patch));
    std::reverse(run.continuations.begin(), run.continuations.end());
  }
  return run;
}

std::vector<RepeatsNeeded> repeats_needed(const RepeatRun& run,
                                          const std::vector<SinkLayer>& sinks) {
  std::vector<RepeatsNeeded> all;
  for (const SinkLayer& sink : sinks) {
    const std::vector<double>& norms = run.norms[sink.layer];
    all.push_back({sink.layer, first_at(norms, [&](double n) { return n > sink.fires_above(); }),
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
