#pragma once

#include <cmath>
#include <string>
#include <vector>

#include "sinkref/forward.h"

// What every analysis does: run a sequence, keep a few numbers of each row.

namespace sinkref {

/// Euclidean norm, summed in double in the order of the elements.
template <class T>
double norm(const T* values, size_t n) {
  double sum = 0;
  for (size_t i = 0; i < n; ++i) sum += double(values[i]) * double(values[i]);
  return std::sqrt(sum);
}
inline double norm(const std::vector<double>& values) { return norm(values.data(), values.size()); }

/// Mean of values[from …]; 0 if there are none.
double mean(const std::vector<double>& values, size_t from = 0);

/// The middle value (the mean of the two middle ones of an even number); 0 if there are none.
double median(std::vector<double> values);

/// Adds a hook that keeps the norm of every row of the first sequence, by position.
void keep_norms(Hook hook, std::vector<double>& by_position, Hooks<float>& hooks);

/// ‖mlp_out‖ and ‖resid_post‖, [layer][position].
struct AllNorms {
  std::vector<std::vector<double>> mlp, resid;
};
void keep_all_norms(size_t layers, AllNorms& norms, Hooks<float>& hooks);

/// How many sequences of so many positions to keep at once: as many as fit into 512 MB, at least one.
size_t caches_at_once(const ModelConfig& config, size_t positions);

/// Softmax of logits in double, for probabilities that are only reported.
std::vector<double> probabilities(const float* logits, size_t n);

}  // namespace sinkref
