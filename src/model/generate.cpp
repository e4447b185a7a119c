#include <algorithm>

#include "arithmetic/layers.h"
#include "sinkref/forward.h"

namespace sinkref {

template <class T>
std::vector<int> generate(Forward<T>& forward, Sequence<T> sequence, size_t count, Hooks<T>& hooks,
                          const std::function<void(int)>& each) {
  const std::vector<int>& eos = forward.model().config().eos_ids;
  // All at once: growing would hold the old and the new cache for a moment.
  const size_t positions = sequence.cache.length + sequence.pending.size() + count - 1;
  sequence.cache.reserve(std::min(positions, forward.model().config().max_positions));
  std::vector<Sequence<T>> batch;
  batch.push_back(std::move(sequence));
  std::vector<int> generated;
  bool prompt = true;
  while (generated.size() < count) {
    const Matrix<T> logits = forward.run(batch, hooks, prompt);
    const int token = static_cast<int>(argmax<T>({logits.row(0), logits.cols}));
    if (std::find(eos.begin(), eos.end(), token) != eos.end()) break;
    generated.push_back(token);
    if (each) each(token);
    batch[0].pending = {token};
    prompt = false;
  }
  return generated;
}

template std::vector<int> generate<float>(Forward<float>&, Sequence<float>, size_t, Hooks<float>&,
                                          const std::function<void(int)>&);
template std::vector<int> generate<double>(Forward<double>&, Sequence<double>, size_t,
                                           Hooks<double>&, const std::function<void(int)>&);

}  // namespace sinkref
