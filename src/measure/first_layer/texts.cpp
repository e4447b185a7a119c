// Detectors and heads over the three-word texts: positions 0, 1 and 2.

#include <algorithm>
#include <cmath>

#include "measure/first_layer/layer_zero.h"

namespace sinkref {

namespace {

constexpr size_t positions = 3, texts_at_once = 128, histogram_bins = 40;

/// The gate pre-activations of all neurons of a layer, [text][position][m].
template <class T>
Matrix<T> gate_over_texts(const Model& model, const RunOptions& options,
                          const std::vector<std::vector<int>>& texts, size_t layer) {
  Matrix<T> all(texts.size() * positions, model.config().intermediate_size);
  for (size_t first = 0; first < texts.size(); first += texts_at_once) {
    const size_t end = std::min(texts.size(), first + texts_at_once);
    Hooks<T> hooks;
    hooks.add({HookPoint::Pre, layer}, [&all, first](const Activation<T>& a) {
      for (size_t r = 0; r < a.rows.size(); ++r)
        std::copy_n(a.row(r), a.width,
                    all.row((first + a.rows[r].sequence) * positions + a.rows[r].position));
    });
    run<T>(model, without_progress(options), {texts.begin() + long(first), texts.begin() + long(end)}, hooks);
  }
  return all;
}

PositionHistogram histogram_of(const std::vector<std::array<double, 3>>& values) {
  double least = values[0][0], most = least;
  for (const auto& text : values)
    for (double value : text) {
      least = std::min(least, value);
      most = std::max(most, value);
    }
  PositionHistogram histogram;
  histogram.first_edge = least;
  histogram.bin_width = (most - least) / histogram_bins;
  histogram.counts.fill(std::vector<size_t>(histogram_bins));
  for (const auto& text : values)
    for (size_t p = 0; p < positions; ++p) {
      const double bin = most > least ? (text[p] - least) / histogram.bin_width : 0;
      ++histogram.counts[p][std::min(static_cast<size_t>(bin), histogram_bins - 1)];
    }
  return histogram;
}

/// Moments, separation and histogram of one neuron; `values` [text][position].
void describe(const std::vector<std::array<double, 3>>& values, Detector& detector) {
  const double count = static_cast<double>(values.size());
  size_t separated = 0;
  for (size_t p = 0; p < positions; ++p) {
    double sum = 0, squares = 0;
    for (const auto& text : values) sum += text[p];
    detector.mean[p] = sum / count;
    for (const auto& text : values) squares += (text[p] - sum / count) * (text[p] - sum / count);
    detector.deviation[p] = values.size() > 1 ? std::sqrt(squares / (count - 1)) : 0;
  }
  for (const auto& text : values) separated += text[0] > std::max(text[1], text[2]);
  detector.separated = static_cast<double>(separated) / count;
  detector.histogram = histogram_of(values);
}

}  // namespace

template <class T>
std::vector<Detector> find_detectors(const Model& model, const RunOptions& options,
                                     const std::vector<std::vector<int>>& texts, size_t layer,
                                     size_t count) {
  const Matrix<T> gate = gate_over_texts<T>(model, options, texts, layer);
  std::vector<Detector> all(gate.cols);
  for (size_t j = 0; j < all.size(); ++j) all[j].neuron = j;
  for (size_t t = 0; t < texts.size(); ++t)
    for (size_t j = 0; j < all.size(); ++j)
      all[j].difference += static_cast<double>(gate.row(t * positions)[j]) -
                           static_cast<double>(gate.row(t * positions + 1)[j]);
  for (Detector& detector : all) detector.difference /= static_cast<double>(texts.size());
  std::stable_sort(all.begin(), all.end(), [](const Detector& a, const Detector& b) {
    return a.difference > b.difference;
  });
  all.resize(std::min(count, all.size()));
  for (Detector& detector : all) {
    std::vector<std::array<double, 3>> values(texts.size());
    for (size_t t = 0; t < texts.size(); ++t)
      for (size_t p = 0; p < positions; ++p)
        values[t][p] = static_cast<double>(gate.row(t * positions + p)[detector.neuron]);
    describe(values, detector);
  }
  return all;
}

template <class T>
std::vector<HeadByPosition> account_by_position(const Model& model, const RunOptions& options,
                                                const std::vector<std::vector<int>>& texts,
                                                std::vector<Detector>& detectors,
                                                Closure& closure) {
  const ModelConfig& c = model.config();
  std::vector<size_t> neurons;
  for (Detector& detector : detectors) {
    neurons.push_back(detector.neuron);
    detector.account = {};
  }
  const std::vector<DetectorReader> readers = detector_readers(model, neurons);
  const OutputWeights output(model);
  std::vector<HeadByPosition> heads(c.heads);
  for (const LayerZeroSequence<T>& text : record_layer_zero<T>(model, options, texts, neurons))
    for (size_t p = 0; p < positions; ++p) {
      for (size_t j = 0; j < detectors.size(); ++j) {
        const PreAccount one = account(c, readers[j], j, text, p);
        closure.add(one);
        add(detectors[j].account[p], one);
      }
      for (size_t head = 0; head < c.heads; ++head) {
        std::vector<double> same(c.head_dim), other(c.head_dim);
        double attention = 0;
        for (size_t i = 0; i < c.head_dim; ++i)
          same[i] = text[p].same[head] * static_cast<double>(head_value(c, text[p], head)[i]);
        for (const auto& key : text[p].other[head]) {
          attention += key.attention;
          for (size_t i = 0; i < c.head_dim; ++i)
            other[i] += key.attention *
                        static_cast<double>(head_value(c, text[key.position], head)[i]);
        }
        heads[head].same[p] += text[p].same[head];
        heads[head].other[p] += attention;
        heads[head].same_norm[p] += output.head_norm(head, same);
        heads[head].other_norm[p] += output.head_norm(head, other);
      }
    }
  const double count = static_cast<double>(texts.size());
  for (Detector& detector : detectors)
    for (PreAccount& total : detector.account) divide(total, count);
  for (HeadByPosition& head : heads)
    for (auto* values : {&head.same, &head.other, &head.same_norm, &head.other_norm})
      for (double& value : *values) value /= count;
  return heads;
}

#define SINKREF_TEXTS(T)                                                                       \
  template std::vector<Detector> find_detectors<T>(const Model&, const RunOptions&,            \
                                                   const std::vector<std::vector<int>>&,       \
                                                   size_t, size_t);                            \
  template std::vector<HeadByPosition> account_by_position<T>(                                 \
      const Model&, const RunOptions&, const std::vector<std::vector<int>>&,                   \
      std::vector<Detector>&, Closure&);
SINKREF_TEXTS(float)
SINKREF_TEXTS(double)
#undef SINKREF_TEXTS

}  // namespace sinkref
