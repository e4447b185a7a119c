// "Detect other tokens": what changes in a head's output when its reader sees one other token, and
// how much of the change depends on which token it is.

#include <algorithm>
#include <cmath>

#include "measure/first_layer/layer_zero.h"

namespace sinkref {

namespace {

/// Vectors of one width over all pairs, [reader][other][width].
struct Pairs {
  size_t readers, others, width;
  std::vector<double> values;

  Pairs(size_t readers, size_t others, size_t width)
      : readers(readers), others(others), width(width), values(readers * others * width) {}
  double* at(size_t reader, size_t other) {
    return values.data() + (reader * others + other) * width;
  }
};

/// Two-way analysis of variance: x_ab = mean + reader_a + other_b + rest_ab, whose mean squares add
/// up. `norm` gives a vector's length. The mean itself is left in `mean`.
template <class Norm>
OtherTokenShift analyse_pairs(Pairs& x, const Norm& norm, std::vector<double>& mean) {
  using Vector = std::vector<double>;
  mean.assign(x.width, 0);
  std::vector<Vector> by_reader(x.readers, Vector(x.width)), by_other(x.others, Vector(x.width));
  OtherTokenShift shift;
  const auto square = [&](const Vector& v) { return norm(v) * norm(v); };
  for (size_t a = 0; a < x.readers; ++a)
    for (size_t b = 0; b < x.others; ++b) {
      const double* value = x.at(a, b);
      for (size_t i = 0; i < x.width; ++i) {
        by_reader[a][i] += value[i] / double(x.others);
        by_other[b][i] += value[i] / double(x.readers);
        mean[i] += value[i] / double(x.readers * x.others);
      }
    }
  double of_readers = 0, of_others = 0, rest = 0;
  for (Vector& v : by_reader) {
    for (size_t i = 0; i < x.width; ++i) v[i] -= mean[i];
    of_readers += square(v) / double(x.readers);
  }
  for (Vector& v : by_other) {
    for (size_t i = 0; i < x.width; ++i) v[i] -= mean[i];
    of_others += square(v) / double(x.others);
  }
  Vector v(x.width);
  for (size_t a = 0; a < x.readers; ++a)
    for (size_t b = 0; b < x.others; ++b) {
      for (size_t i = 0; i < x.width; ++i)
        v[i] = x.at(a, b)[i] - mean[i] - by_reader[a][i] - by_other[b][i];
      rest += square(v) / double(x.readers * x.others);
    }
  const double of_mark = square(mean), total = of_mark + of_readers + of_others + rest;
  shift.size = std::sqrt(total);
  shift.mark = x.width == 1 ? mean[0] : std::sqrt(of_mark);
  if (total > 0) shift.shares = {of_mark / total, of_readers / total, of_others / total, rest / total};
  return shift;
}

/// Layer 0 on every pair "other reader" (what is seen first, who looks second), and on the readers
/// alone.
template <class T>
struct PairRuns {
  std::vector<LayerZeroSequence<T>> pairs, lone;
  size_t others;

  PairRuns(const Model& model, const RunOptions& options, const FirstLayerInputs& inputs,
           const std::vector<size_t>& neurons)
      : others(inputs.others.size()) {
    std::vector<std::vector<int>> batch, alone;
    for (int reader : inputs.readers) {
      alone.push_back({reader});
      for (int other : inputs.others) batch.push_back({other, reader});
    }
    pairs = record_layer_zero<T>(model, options, batch, neurons);
    lone = record_layer_zero<T>(model, options, alone, neurons);
  }
  const LayerZeroPosition<T>& pair(size_t reader, size_t other) const {
    return pairs[reader * others + other][1];
  }
};

}  // namespace

template <class T>
OtherTokenDetection detect_other_tokens(const Model& model, const RunOptions& options,
                                        const FirstLayerInputs& inputs,
                                        const std::vector<Detector>& detectors) {
  const ModelConfig& c = model.config();
  std::vector<size_t> neurons;
  for (const Detector& detector : detectors) neurons.push_back(detector.neuron);
  const PairRuns<T> runs(model, options, inputs, neurons);
  const std::vector<DetectorReader> weights = detector_readers(model, neurons);
  const OutputWeights output(model);
  const size_t readers = inputs.readers.size(), others = inputs.others.size();
  const auto euclid = [](const std::vector<double>& v) { return norm(v); };
  OtherTokenDetection found;
  std::vector<double> mean;

  // `value` fills a pair's vector from the pair's and the reader's own recording.
  const auto over_pairs = [&](size_t width, const auto& value) {
    Pairs x(readers, others, width);
    for (size_t a = 0; a < readers; ++a)
      for (size_t b = 0; b < others; ++b) value(runs.pair(a, b), runs.lone[a][0], x.at(a, b));
    return x;
  };
  const auto change = [](const auto& seeing, const auto& lone, size_t i) {
    return static_cast<double>(seeing.z[i]) - static_cast<double>(lone.z[i]);
  };

  std::vector<double> attention(c.heads);
  for (size_t a = 0; a < readers; ++a)
    for (size_t b = 0; b < others; ++b)
      for (size_t head = 0; head < c.heads; ++head)
        for (const auto& key : runs.pair(a, b).other[head])
          attention[head] += key.attention / double(readers * others);
  for (size_t head = 0; head < c.heads; ++head) {
    Pairs x = over_pairs(c.head_dim, [&](const auto& seeing, const auto& lone, double* into) {
      for (size_t i = 0; i < c.head_dim; ++i)
        into[i] = change(seeing, lone, head * c.head_dim + i);
    });
    found.heads.push_back(analyse_pairs(
        x, [&](const std::vector<double>& v) { return output.head_norm(head, v); }, mean));
    found.heads.back().attention = attention[head];
  }

  Pairs whole = over_pairs(c.hidden_size, [&](const auto& seeing, const auto& lone, double* into) {
    for (size_t i = 0; i < c.hidden_size; ++i)
      into[i] = static_cast<double>(seeing.attn_out[i]) - static_cast<double>(lone.attn_out[i]);
  });
  found.attention = analyse_pairs(whole, euclid, found.mark);
  for (double a : attention) found.attention.attention += a / double(c.heads);

  for (size_t j = 0; j < weights.size(); ++j) {
    found.detectors.emplace_back();
    for (size_t head = 0; head < c.heads; ++head) {
      Pairs part = over_pairs(1, [&](const auto& seeing, const auto& lone, double* into) {
        for (size_t i = head * c.head_dim; i < (head + 1) * c.head_dim; ++i)
          *into += weights[j].heads[i] * change(seeing, lone, i);
        *into /= static_cast<double>(seeing.scale);  // the head's part alone, at the pair's scale
      });
      found.detectors.back().push_back(analyse_pairs(part, euclid, mean));
      found.detectors.back().back().attention = attention[head];
    }
    Pairs all = over_pairs(1, [&](const auto& seeing, const auto& lone, double* into) {
      *into = static_cast<double>(seeing.pre[j]) - static_cast<double>(lone.pre[j]);
    });
    found.detector_totals.push_back(analyse_pairs(all, euclid, mean));
    found.detector_totals.back().attention = found.attention.attention;
  }
  return found;
}

template OtherTokenDetection detect_other_tokens<float>(const Model&, const RunOptions&,
                                                        const FirstLayerInputs&,
                                                        const std::vector<Detector>&);
template OtherTokenDetection detect_other_tokens<double>(const Model&, const RunOptions&,
                                                         const FirstLayerInputs&,
                                                         const std::vector<Detector>&);

}  // namespace sinkref
