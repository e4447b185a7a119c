#pragma once

#include <span>
#include <string>

#include "sinkref/hooks.h"
#include "sinkref/kernels.h"

namespace sinkref {

/// One number of a row of logits, or of another hook's row: what a patch is judged by. In double.
struct Metric {
  enum class Kind {
    logit_difference,  ///< row[token] - row[other]
    log_probability,   ///< ln softmax(row)[token]
    probability,       ///< softmax(row)[token]
    norm,              ///< Euclidean, of the whole row
  };
  Kind kind = Kind::logit_difference;
  size_t token = 0, other = 0;
};

inline constexpr Metric::Kind metric_kinds[] = {Metric::Kind::logit_difference, Metric::Kind::log_probability,
                                                Metric::Kind::probability, Metric::Kind::norm};
const char* metric_name(Metric::Kind kind);
/// How many tokens a metric is of: two, one or none.
size_t metric_tokens(Metric::Kind kind);

/// Throws InputError for a metric of tokens where the row is not of logits.
void check_observed(Metric::Kind kind, Hook observed);
/// Throws InputError for a token beyond a row of `width` numbers.
void check_metric(const Metric& metric, size_t width);

/// The same bits for every kernel. The tokens have passed check_metric() for the row's width, and there is one row.
template <class T>
double measure(const Metric& metric, const Kernels<T>& kernels, std::span<const T> row);

}  // namespace sinkref
