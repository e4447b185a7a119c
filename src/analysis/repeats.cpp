#include "sinkref/repeats.h"

#include <algorithm>
#include <cmath>

namespace sinkref {

namespace {

/// The first `length` positions of a cache, with room for a continuation.
KvCache<float> beginning_of(const KvCache<float>& cache, size_t length, const ModelConfig& config) {
  KvCache<float> copy(config, config.layers, length + 1 + continuation_tokens);
  std::vector<float> key(config.head_dim);
  for (size_t layer = 0; layer < config.layers; ++layer)
    for (size_t head = 0; head < config.kv_heads; ++head)
      for (size_t position = 0; position < length; ++position) {
        for (size_t i = 0; i < config.head_dim; ++i)
          key[i] = cache.keys(layer, head)[key_index(position, i, config.head_dim)];
        copy.store(layer, head, position, key.data(),
                   cache.values(layer, head) + position * cache_padded(config.head_dim));
      }
  copy.length = length;
  copy.kept = cache.kept;
  return copy;
}

/// Continues greedily after each of `points` repeats, from the cache of the whole run. All at once:
/// a decode step costs little more for several sequences than for one.
std::vector<Continuation> continue_after(const std::vector<size_t>& points,
                                         const SinkInputs::Word& word,
                                         const KvCache<float>& run, Forward<float>& forward,
                                         Hooks<float>& hooks) {
  const ModelConfig& config = forward.model().config();
  std::vector<Continuation> all(points.size());
  std::vector<Sequence<float>> batch;
  std::vector<size_t> of;  // the continuation that a sequence of the batch belongs to
  for (size_t i = 0; i < points.size(); ++i) {
    all[i].repeats = points[i];
    // The last repeat is run again: its logits are wanted.
    const size_t before = word.prefix.size() + points[i] - 1;
    batch.push_back({beginning_of(run, before, config), {word.token}});
    of.push_back(i);
  }
  for (bool prompt = true; !batch.empty(); prompt = false) {
    const Matrix<float> logits = forward.run(batch, hooks, prompt);
    std::vector<Sequence<float>> going;
    std::vector<size_t> whose;
    for (size_t b = 0; b < batch.size(); ++b) {
      Continuation& c = all[of[b]];
      if (prompt)
        c.probability = probabilities(logits.row(b), logits.cols)[static_cast<size_t>(word.token)];
      const int token = static_cast<int>(argmax<float>({logits.row(b), logits.cols}));
      const bool ended =
          std::find(config.eos_ids.begin(), config.eos_ids.end(), token) != config.eos_ids.end();
      if (!ended) c.generated.push_back(token);
      if (ended || c.generated.size() == continuation_tokens ||
          batch[b].cache.length == config.max_positions) {  // the context is full
        judge(c, word.token, ended);
        continue;
      }
      batch[b].pending = {token};
      going.push_back(std::move(batch[b]));
      whose.push_back(of[b]);
    }
    batch.swap(going);
    of.swap(whose);
  }
  return all;
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
  if (plan.continuations)
    run.continuations =
        continue_after(continuation_points(repeats), word, batch[0].cache, forward, patch);
  return run;
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
