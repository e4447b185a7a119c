#pragma once

#include <span>

#include "sinkref/kernels.h"

namespace sinkref {

/// ln x for a normal x > 0, within 2 ulp, from additions, products and quotients alone.
double natural_log(double x);

/// log softmax(logits)[t] = (logits[t] - max) + ln p_max, where p = softmax(logits) is the kernel's,
/// whose sum runs over sum_lanes lanes in double. Good to 2e-7 for fp32, far below what the logits
/// are; the same bits everywhere.
struct LogSoftmax {
  double max = 0;
  double log_p_max = 0;
  size_t argmax = 0;
  double at(double logit) const { return logit - max + log_p_max; }
};
template <class T>
LogSoftmax log_softmax(const Kernels<T>& kernels, std::span<const T> logits);

}  // namespace sinkref
