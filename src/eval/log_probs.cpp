#include "arithmetic/log_softmax.h"
#include "base/threads.h"
#include "eval/eval.h"

namespace sinkref {

template <class T>
void add_log_probs(const Kernels<T>& kernels, const int* targets, size_t before, double* log_probs, Hooks<T>& hooks) {
  hooks.add({HookPoint::Logits, 0}, [=, &kernels](const Activation<T>& a) {
    parallel_for(a.rows.size(), [&](size_t r) {
      const size_t i = a.rows[r].position - before;
      log_probs[i] = log_softmax<T>(kernels, {a.row(r), a.width}).at(a.row(r)[targets[i]]);
    });
  });
}

template void add_log_probs<float>(const Kernels<float>&, const int*, size_t, double*, Hooks<float>&);
template void add_log_probs<double>(const Kernels<double>&, const int*, size_t, double*, Hooks<double>&);

}  // namespace sinkref
