#include "sinkref/metric.h"

#include <cmath>
#include <stdexcept>

#include "arithmetic/log_softmax.h"
#include "sinkref/error.h"

namespace sinkref {

using Kind = Metric::Kind;

const char* metric_name(Kind kind) {
  switch (kind) {
    case Kind::logit_difference: return "logit_difference";
    case Kind::log_probability: return "log_probability";
    case Kind::probability: return "probability";
    case Kind::norm: return "norm";
  }
  throw std::logic_error("there is no such metric");
}

size_t metric_tokens(Kind kind) { return kind == Kind::norm ? 0 : kind == Kind::logit_difference ? 2 : 1; }

void check_observed(Kind kind, Hook observed) {
  if (metric_tokens(kind) > 0 && observed.point != HookPoint::Logits)
    refuse(std::string("the metric ") + metric_name(kind), "looks at " + hook_name(observed) + ", expected logits",
           "take norm");
}

void check_metric(const Metric& metric, size_t width) {
  const size_t tokens[] = {metric.token, metric.other};
  for (size_t i = 0; i < metric_tokens(metric.kind); ++i)
    if (tokens[i] >= width)
      refuse(metric_name(metric.kind),
             "there is no token " + std::to_string(tokens[i]) + " in a row of " + std::to_string(width) +
                 " numbers, expected 0 to " + std::to_string(width - 1),
             "sinkref tokenize shows the ids of a text");
}

template <class T>
double measure(const Metric& metric, const Kernels<T>& kernels, std::span<const T> row) {
  const auto at = [&](size_t i) { return static_cast<double>(row[i]); };
  switch (metric.kind) {
    case Kind::logit_difference: return at(metric.token) - at(metric.other);
    case Kind::log_probability: return log_softmax<T>(kernels, row).at(at(metric.token));
    case Kind::probability: return exp_spec(log_softmax<T>(kernels, row).at(at(metric.token)));
    case Kind::norm: return std::sqrt(lane_sum<T>(0, row.size(), [&](size_t i) { return at(i) * at(i); }));
  }
  throw std::logic_error("there is no such metric");
}

template double measure<float>(const Metric&, const Kernels<float>&, std::span<const float>);
template double measure<double>(const Metric&, const Kernels<double>&, std::span<const double>);

}  // namespace sinkref
