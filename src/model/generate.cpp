#include <algorithm>

#include "arithmetic/layers.h"
#include "sinkref/forward.h"

namespace sinkref {

template <class T>
std::vector<Greedy> continue_greedily(Forward<T>& forward, std::vector<Sequence<T>>& batch,
                                      Matrix<T> logits, size_t count, Hooks<T>& hooks,
                                      const std::function<void(int)>& each) {
  const ModelConfig& c = forward.model().config();
  std::vector<Greedy> all(batch.size());
  std::vector<bool> going(batch.size(), count > 0);
  while (true) {
    bool pending = false;
    for (size_t b = 0; b < batch.size(); ++b) {
      if (!going[b]) continue;
      const int token = static_cast<int>(argmax<T>({logits.row(b), logits.cols}));
      all[b].ended = std::find(c.eos_ids.begin(), c.eos_ids.end(), token) != c.eos_ids.end();
      if (!all[b].ended) {
        all[b].tokens.push_back(token);
        if (each) each(token);
      }
      going[b] = !all[b].ended && all[b].tokens.size() < count &&
                 batch[b].cache.length < c.max_positions;
      if (going[b]) batch[b].pending = {token};
      pending |= going[b];
    }
    if (!pending) return all;
    logits = forward.run(batch, hooks, false);
  }
}

template <class T>
std::vector<int> generate(Forward<T>& forward, Sequence<T> sequence, size_t count, Hooks<T>& hooks,
                          const std::function<void(int)>& each) {
  // All at once: growing would hold the old and the new cache for a moment.
  const size_t positions = sequence.cache.length + sequence.pending.size() + count;
  sequence.cache.reserve(std::min(positions, forward.model().config().max_positions));
  std::vector<Sequence<T>> batch;
  batch.push_back(std::move(sequence));
  const Matrix<T> logits = forward.run(batch, hooks);
  return continue_greedily(forward, batch, logits, count, hooks, each)[0].tokens;
}

template std::vector<Greedy> continue_greedily(Forward<float>&, std::vector<Sequence<float>>&, Matrix<float>,
                                               size_t, Hooks<float>&, const std::function<void(int)>&);
template std::vector<Greedy> continue_greedily(Forward<double>&, std::vector<Sequence<double>>&, Matrix<double>,
                                               size_t, Hooks<double>&, const std::function<void(int)>&);
template std::vector<int> generate(Forward<float>&, Sequence<float>, size_t, Hooks<float>&,
                                   const std::function<void(int)>&);
template std::vector<int> generate(Forward<double>&, Sequence<double>, size_t, Hooks<double>&,
                                   const std::function<void(int)>&);

}  // namespace sinkref
