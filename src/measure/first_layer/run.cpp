// "prefix + n repeats" against the lone token: does layer 0 come to see the same, and how fast?
// (Theorem 4.1: the attention to the prefix, and with it the difference, goes to 0 as 1/n.)

#include <algorithm>
#include <cmath>

#include "measure/first_layer/layer_zero.h"

namespace sinkref {

namespace {

/// 1, 2, 3, 4, 6, 8, 11, 16, … and the last.
std::vector<size_t> chosen_repeats(size_t repeats) {
  std::vector<size_t> chosen;
  for (double n = 1; static_cast<size_t>(n + 0.5) < repeats; n *= std::sqrt(2.0))
    if (chosen.empty() || chosen.back() != static_cast<size_t>(n + 0.5))
      chosen.push_back(static_cast<size_t>(n + 0.5));
  chosen.push_back(repeats);
  return chosen;
}

/// The same for every head: Σ_other A_k v_k + (A_same - A_same,lone) v, all heads' side by side. It is
/// what attention and values say z differs by from the lone token's; `magnitude` is the sum of the
/// terms' absolute values in both.
template <class T>
std::vector<double> difference_of_z(const ModelConfig& c, const LayerZeroSequence<T>& run,
                                    size_t position, const LayerZeroPosition<T>& lone,
                                    std::vector<double>* magnitude = nullptr) {
  const LayerZeroPosition<T>& at = run[position];
  std::vector<double> z(c.heads * c.head_dim);
  if (magnitude) magnitude->assign(z.size(), 0);
  for (size_t head = 0; head < c.heads; ++head) {
    const T* own = head_value(c, at, head);
    for (size_t i = 0; i < c.head_dim; ++i) {
      const size_t k = head * c.head_dim + i;
      const double value = static_cast<double>(own[i]);
      z[k] = (at.same[head] - lone.same[head]) * value;
      if (magnitude) (*magnitude)[k] = (at.same[head] + lone.same[head]) * std::fabs(value);
    }
    for (const auto& key : at.other[head])
      for (size_t i = 0; i < c.head_dim; ++i) {
        const double value = static_cast<double>(head_value(c, run[key.position], head)[i]);
        z[head * c.head_dim + i] += key.attention * value;
        if (magnitude) (*magnitude)[head * c.head_dim + i] += key.attention * std::fabs(value);
      }
  }
  return z;
}

template <class T>
double other_attention(const LayerZeroPosition<T>& at, size_t head) {
  double sum = 0;
  for (const auto& key : at.other[head]) sum += key.attention;
  return sum;
}

template <class T>
double distance(const std::vector<T>& a, const std::vector<T>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double difference = static_cast<double>(a[i]) - static_cast<double>(b[i]);
    sum += difference * difference;
  }
  return std::sqrt(sum);
}

/// Least-squares slope of ln y against ln n over the last nine tenths; 0 if y is not positive.
double log_slope(const std::vector<double>& y) {
  double n = 0, sx = 0, sy = 0, sxx = 0, sxy = 0;
  for (size_t i = y.size() / 10; i < y.size(); ++i) {
    if (!(y[i] > 0)) return 0;
    const double lx = std::log(static_cast<double>(i + 1)), ly = std::log(y[i]);
    n += 1, sx += lx, sy += ly, sxx += lx * lx, sxy += lx * ly;
  }
  const double spread = n * sxx - sx * sx;
  return spread > 0 ? (n * sxy - sx * sy) / spread : 0;
}

/// max over the prefix of ‖W_o,h (v_k - v)‖, per head.
template <class T>
std::vector<double> farthest_values(const ModelConfig& c, const OutputWeights& output,
                                    const LayerZeroSequence<T>& run, size_t first) {
  std::vector<double> farthest(c.heads);
  for (size_t head = 0; head < c.heads; ++head)
    for (const auto& key : run[first].other[head]) {
      std::vector<double> difference(c.head_dim);
      for (size_t i = 0; i < c.head_dim; ++i)
        difference[i] = static_cast<double>(head_value(c, run[key.position], head)[i]) -
                        static_cast<double>(head_value(c, run[first], head)[i]);
      farthest[head] = std::max(farthest[head], output.head_norm(head, difference));
    }
  return farthest;
}

/// The theorem's rate: with equal scores within the run, head h's attention to the prefix at the
/// n-th repeat is odds/(odds + n), from the odds at the first; its difference shrinks in proportion.
template <class T>
std::vector<double> theorem_rate(const ModelConfig& c, const OutputWeights& output,
                                 const LayerZeroSequence<T>& run, size_t first,
                                 const LayerZeroPosition<T>& lone, size_t repeats) {
  const std::vector<double> z = difference_of_z(c, run, first, lone);
  std::vector<std::vector<double>> change;  // of the residual, by head
  std::vector<double> odds;
  for (size_t head = 0; head < c.heads; ++head) {
    const auto begin = z.begin() + static_cast<long>(head * c.head_dim);
    change.push_back(output.head_product(head, {begin, begin + static_cast<long>(c.head_dim)}));
    odds.push_back(other_attention(run[first], head) / run[first].same[head]);
  }
  Matrix<double> products(c.heads, c.heads);
  for (size_t a = 0; a < c.heads; ++a)
    for (size_t b = 0; b < c.heads; ++b)
      for (size_t i = 0; i < change[a].size(); ++i)
        products.row(a)[b] += change[a][i] * change[b][i];
  std::vector<double> rate;
  for (size_t n = 1; n <= repeats; ++n) {
    const auto shrunk = [&](size_t head) { return (odds[head] + 1) / (odds[head] + double(n)); };
    double square = 0;
    for (size_t a = 0; a < c.heads; ++a)
      for (size_t b = 0; b < c.heads; ++b) square += products.row(a)[b] * shrunk(a) * shrunk(b);
    rate.push_back(std::sqrt(std::max(0.0, square)));
  }
  return rate;
}

/// The distance from attention and values, which must be the measured one up to rounding.
template <class T>
double predict_distance(const ModelConfig& c, const OutputWeights& output,
                        const LayerZeroSequence<T>& run, size_t position,
                        const LayerZeroPosition<T>& lone, double measured, Closure& closure) {
  std::vector<double> magnitude;
  const std::vector<double> change =
      output.product(difference_of_z(c, run, position, lone, &magnitude));
  const double scale = norm(output.magnitude(magnitude));
  // The account of account(), up to attn_out and its bias.
  const size_t forward = chain_roundings(position + 1) + 1 + chain_roundings(magnitude.size()) + 1;
  const size_t own = position + magnitude.size() + 8;
  closure.add(std::fabs(norm(change) - measured),
              scale * (rounding<T>(forward) + rounding<double>(own)), scale);
  return norm(change);
}

}  // namespace

template <class T>
Convergence follow_run(const Model& model, const RunOptions& options, const SinkInputs::Word& word,
                       size_t repeats, const std::vector<Detector>& detectors, Closure& closure) {
  const ModelConfig& c = model.config();
  std::vector<size_t> neurons;
  for (const Detector& detector : detectors) neurons.push_back(detector.neuron);
  const std::vector<DetectorReader> readers = detector_readers(model, neurons);
  const OutputWeights output(model);
  std::vector<int> tokens = word.prefix;
  tokens.insert(tokens.end(), repeats, word.token);
  const size_t first = word.prefix.size();
  const auto run = record_layer_zero<T>(model, options, {tokens}, neurons, first)[0];
  const auto alone = record_layer_zero<T>(model, options, {{word.token}}, neurons)[0];
  const LayerZeroPosition<T>& lone = alone[0];

  Convergence found;
  found.word = word.text;
  found.token = word.token;
  found.lone_norm = distance(lone.resid_post, std::vector<T>(lone.resid_post.size()));
  const std::vector<double> farthest = farthest_values(c, output, run, first);
  for (size_t n = 0; n < repeats; ++n) {
    const LayerZeroPosition<T>& at = run[first + n];
    found.attention_distance.push_back(distance(at.attn_out, lone.attn_out));
    found.layer_distance.push_back(distance(at.resid_post, lone.resid_post));
    double attention = 0, bound = 0;
    for (size_t head = 0; head < c.heads; ++head) {
      attention += other_attention(at, head) / double(c.heads);
      bound += other_attention(at, head) * farthest[head];
    }
    found.other_attention.push_back(attention);
    found.bound.push_back(bound);
  }
  found.rate = theorem_rate(c, output, run, first, lone, repeats);
  found.slope_distance = log_slope(found.attention_distance);
  found.slope_attention = log_slope(found.other_attention);
  found.slope_rate = log_slope(found.rate);

  found.detectors.resize(detectors.size());
  const auto account_of = [&](size_t j, const LayerZeroSequence<T>& sequence, size_t position) {
    const PreAccount one = account(c, readers[j], j, sequence, position);
    closure.add(one);
    return one;
  };
  for (size_t n : chosen_repeats(repeats)) {
    const size_t position = first + n - 1;
    found.predicted.push_back({n, predict_distance(c, output, run, position, lone,
                                                   found.attention_distance[n - 1], closure)});
    for (size_t j = 0; j < detectors.size(); ++j)
      found.detectors[j].push_back({n, account_of(j, run, position)});
  }
  for (size_t j = 0; j < detectors.size(); ++j)
    found.lone.push_back({0, account_of(j, alone, 0)});
  return found;
}

template Convergence follow_run<float>(const Model&, const RunOptions&, const SinkInputs::Word&,
                                       size_t, const std::vector<Detector>&, Closure&);
template Convergence follow_run<double>(const Model&, const RunOptions&, const SinkInputs::Word&,
                                        size_t, const std::vector<Detector>&, Closure&);

}  // namespace sinkref
