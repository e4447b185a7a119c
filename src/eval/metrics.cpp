// Scores as lm-eval computes them (api/task.py process_results, api/metrics.py).

#include <algorithm>
#include <cmath>

#include "arithmetic/log_softmax.h"
#include "eval/eval.h"
#include "sinkref/number.h"

namespace sinkref {

namespace {

size_t first_largest(const std::vector<double>& values) {
  return static_cast<size_t>(std::max_element(values.begin(), values.end()) - values.begin());
}

double is_gold(const EvalItem& item, const std::vector<double>& ll,
               const std::vector<double>& divisors) {
  std::vector<double> values = ll;
  for (size_t i = 0; i < divisors.size(); ++i) values[i] /= divisors[i];
  return first_largest(values) == item.gold ? 1 : 0;
}

/// The share of the true choices in Σ exp(ll), scaled by the largest so that nothing underflows.
double true_mass(const std::vector<int>& labels, const std::vector<double>& ll) {
  const double largest = ll[first_largest(ll)];
  double all = 0, of_true = 0;
  for (size_t i = 0; i < ll.size(); ++i) {
    const double mass = exp_spec(ll[i] - largest);
    all += mass;
    if (labels[i] == 1) of_true += mass;
  }
  return of_true / all;
}

double mean_of(const std::vector<double>& values) {
  double sum = 0;
  for (double value : values) sum += value;
  return sum / static_cast<double>(values.size());
}

/// (n - 1) times the sample variance.
double squares(const std::vector<double>& values) {
  const double mean = mean_of(values);
  double sum = 0;
  for (double value : values) sum += (value - mean) * (value - mean);
  return sum;
}

/// McNemar's exact test: twice the chance that of n fair coins at most `fewer` fall one way.
double mcnemar(size_t better, size_t worse) {
  const size_t n = better + worse, fewer = std::min(better, worse);
  double log_term = -static_cast<double>(n) * natural_log(2.0), sum = 0;  // of C(n, k) / 2^n
  for (size_t k = 0; k <= fewer; ++k) {
    sum += exp_spec(log_term);
    log_term += natural_log(static_cast<double>(n - k)) - natural_log(static_cast<double>(k + 1));
    if (k == n) break;
  }
  return std::min(1.0, 2 * sum);
}

}  // namespace

Metrics item_metrics(const EvalItem& item, const std::vector<double>& ll) {
  if (!item.labels.empty()) return {{"acc", true_mass(item.labels, ll)}};
  Metrics metrics = {{"acc", is_gold(item, ll, {})}};
  if (!item.norm_chars.empty()) metrics.push_back({"acc_norm", is_gold(item, ll, item.norm_chars)});
  if (!item.norm_bytes.empty())
    metrics.push_back({"acc_bytes", is_gold(item, ll, item.norm_bytes)});
  return metrics;
}

Estimate estimate(const std::vector<double>& values, const std::vector<std::string>& subjects) {
  std::map<std::string, std::vector<double>> groups;
  for (size_t i = 0; i < values.size(); ++i) groups[subjects[i]].push_back(values[i]);
  Estimate result;
  result.n = values.size();
  if (values.empty()) return result;
  result.mean = mean_of(values);
  // pooled_sample_stderr; with one group it is mean_stderr.
  double sum = 0;
  for (const auto& [subject, group] : groups) sum += squares(group);
  if (values.size() > groups.size()) {
    const auto n = static_cast<double>(values.size());
    result.stderr_ = std::sqrt(sum / (n - static_cast<double>(groups.size())) / n);
  }
  return result;
}

Paired paired(const std::vector<double>& original, const std::vector<double>& patched,
              const std::vector<std::string>& subjects) {
  std::vector<double> differences;
  Paired result;
  bool binary = true;
  for (size_t i = 0; i < original.size(); ++i) {
    differences.push_back(patched[i] - original[i]);
    result.better += differences[i] > 0;
    result.worse += differences[i] < 0;
    for (double value : {original[i], patched[i]}) binary &= value == 0 || value == 1;
  }
  result.difference = estimate(differences, subjects);
  if (binary) result.p = mcnemar(result.better, result.worse);
  return result;
}

}  // namespace sinkref
