#include "measure/first_layer/layer_zero.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/threads.h"

namespace sinkref {

namespace {

constexpr size_t sequences_at_once = 128;

template <class T>
class Recorder {
 public:
  Recorder(std::vector<LayerZeroSequence<T>>& all, size_t first, const std::vector<size_t>& neurons,
           size_t from, Hooks<T>& hooks)
      : all_(all), first_(first), neurons_(neurons), from_(from) {
    keep(hooks, HookPoint::ResidPre, &LayerZeroPosition<T>::embed);
    keep(hooks, HookPoint::V, &LayerZeroPosition<T>::v);
    keep(hooks, HookPoint::Z, &LayerZeroPosition<T>::z);
    keep(hooks, HookPoint::AttnOut, &LayerZeroPosition<T>::attn_out);
    keep(hooks, HookPoint::ResidPost, &LayerZeroPosition<T>::resid_post);
    hooks.add({HookPoint::Pattern, 0}, [this](const Activation<T>& a) { attention(a); });
    hooks.add({HookPoint::Ln2Scale, 0}, [this](const Activation<T>& a) {
      for (size_t r = 0; r < a.rows.size(); ++r) at(a.rows[r]).scale = a.row(r)[0];
    });
    hooks.add({HookPoint::Pre, 0}, [this](const Activation<T>& a) {
      for (size_t r = 0; r < a.rows.size(); ++r)
        for (size_t neuron : neurons_) at(a.rows[r]).pre.push_back(a.row(r)[neuron]);
    });
  }

 private:
  LayerZeroPosition<T>& at(const Row& row) { return all_[first_ + row.sequence][row.position]; }

  void keep(Hooks<T>& hooks, HookPoint point, std::vector<T> LayerZeroPosition<T>::*member) {
    hooks.add({point, 0}, [this, member](const Activation<T>& a) {
      for (size_t r = 0; r < a.rows.size(); ++r)
        (at(a.rows[r]).*member).assign(a.row(r), a.row(r) + a.width);
    });
  }

  void attention(const Activation<T>& a) {
    for (size_t r = 0; r < a.rows.size(); ++r) {
      if (a.rows[r].position < from_) continue;
      const LayerZeroSequence<T>& sequence = all_[first_ + a.rows[r].sequence];
      LayerZeroPosition<T>& query = at(a.rows[r]);
      double same = 0;
      std::vector<typename LayerZeroPosition<T>::Key> other;
      for (size_t k = 0; k <= a.rows[r].position; ++k) {
        const double attention = static_cast<double>(a.row(r)[k]);
        if (sequence[k].token == query.token) same += attention;
        else other.push_back({k, attention});
      }
      query.same.resize(std::max(query.same.size(), a.head + 1));
      query.other.resize(query.same.size());
      query.same[a.head] = same;
      query.other[a.head] = std::move(other);
    }
  }

  std::vector<LayerZeroSequence<T>>& all_;
  size_t first_;
  const std::vector<size_t>& neurons_;
  size_t from_;
};

}  // namespace

template <class T>
std::vector<LayerZeroSequence<T>> record_layer_zero(const Model& model, const RunOptions& options,
                                                    const std::vector<std::vector<int>>& batch,
                                                    const std::vector<size_t>& neurons,
                                                    size_t from) {
  std::vector<LayerZeroSequence<T>> all(batch.size());
  for (size_t first = 0; first < batch.size(); first += sequences_at_once) {
    const size_t end = std::min(batch.size(), first + sequences_at_once);
    for (size_t i = first; i < end; ++i)
      for (int token : batch[i]) all[i].emplace_back().token = token;
    Hooks<T> hooks;
    const Recorder<T> recorder(all, first, neurons, from, hooks);
    run<T>(model, without_progress(options), {batch.begin() + long(first), batch.begin() + long(end)}, hooks);
  }
  return all;
}

std::vector<DetectorReader> detector_readers(const Model& model,
                                             const std::vector<size_t>& neurons) {
  const LayerWeights& w = model.layer(0);
  const size_t d = w.w_gate.cols, heads_width = w.wo.cols;
  std::vector<DetectorReader> readers(neurons.size());
  for (size_t j = 0; j < neurons.size(); ++j) {
    const std::vector<float> gate = widen_row(w.w_gate, neurons[j]);
    for (size_t i = 0; i < d; ++i)
      readers[j].direct.push_back(double(gate[i]) * double(w.ln2[i]));
    for (double x : readers[j].direct) readers[j].direct_magnitude.push_back(std::fabs(x));
    readers[j].heads.resize(heads_width);
    readers[j].heads_magnitude.resize(heads_width);
    if (!w.b_gate.empty()) readers[j].bias_gate = w.b_gate[neurons[j]];
  }
  for (size_t i = 0; i < d; ++i) {
    const std::vector<float> row = widen_row(w.wo, i);
    for (DetectorReader& reader : readers) {
      for (size_t k = 0; k < heads_width; ++k) {
        reader.heads[k] += reader.direct[i] * double(row[k]);
        reader.heads_magnitude[k] += std::fabs(reader.direct[i] * double(row[k]));
      }
      if (w.bo.empty()) continue;
      reader.bias_o += reader.direct[i] * double(w.bo[i]);
      reader.bias_o_magnitude += std::fabs(reader.direct[i] * double(w.bo[i]));
    }
  }
  return readers;
}

template <class T>
double rounding(size_t roundings) {
  const double nu =
      static_cast<double>(roundings) * static_cast<double>(std::numeric_limits<T>::epsilon()) / 2;
  return nu / (1 - nu);
}

/// The forward pass rounds a term on its way into z, attn_out, its bias, the residual, the division
/// by the scale, the weight, the gate's sum and its bias; the account itself rounds in double.
template <class T>
PreAccount account(const ModelConfig& c, const DetectorReader& reader, size_t index,
                   const LayerZeroSequence<T>& sequence, size_t position) {
  const LayerZeroPosition<T>& at = sequence[position];
  const double scale = static_cast<double>(at.scale);
  PreAccount sum;
  for (size_t i = 0; i < at.embed.size(); ++i) {
    sum.embed += reader.direct[i] * static_cast<double>(at.embed[i]);
    sum.magnitude += reader.direct_magnitude[i] * std::fabs(static_cast<double>(at.embed[i]));
  }
  for (size_t head = 0; head < c.heads; ++head) {
    const double* weight = reader.heads.data() + head * c.head_dim;
    const double* magnitude = reader.heads_magnitude.data() + head * c.head_dim;
    const auto read = [&](size_t key, double attention) {
      const T* v = head_value(c, sequence[key], head);
      double value = 0, absolute = 0;
      for (size_t i = 0; i < c.head_dim; ++i) {
        value += weight[i] * static_cast<double>(v[i]);
        absolute += magnitude[i] * std::fabs(static_cast<double>(v[i]));
      }
      sum.magnitude += attention * absolute;
      return attention * value / scale;
    };
    sum.same.push_back(read(position, at.same[head]));
    sum.other.push_back(0);
    for (const auto& key : at.other[head]) sum.other.back() += read(key.position, key.attention);
  }
  sum.scale = scale;
  sum.embed /= scale;
  sum.bias = reader.bias_o / scale + reader.bias_gate;
  sum.magnitude = (sum.magnitude + reader.bias_o_magnitude) / scale + std::fabs(reader.bias_gate);
  sum.whole = static_cast<double>(at.pre[index]);
  const size_t keys = position + 1, d = at.embed.size(), heads_width = c.heads * c.head_dim;
  const size_t forward =
      chain_roundings(keys) + 1 + chain_roundings(heads_width) + chain_roundings(d) + 5;
  const size_t own = 2 * d + c.head_dim + keys + 2 * c.heads + 8;
  sum.bound = sum.magnitude * (rounding<T>(forward) + rounding<double>(own));
  return sum;
}

double PreAccount::sum() const {
  double total = embed + bias;
  for (size_t head = 0; head < same.size(); ++head) total += same[head] + other[head];
  return total;
}

void add(PreAccount& total, const PreAccount& one) {
  total.embed += one.embed;
  total.bias += one.bias;
  total.scale += one.scale;
  total.whole += one.whole;
  total.bound += one.bound;
  total.magnitude += one.magnitude;
  total.same.resize(one.same.size());
  total.other.resize(one.other.size());
  for (size_t head = 0; head < one.same.size(); ++head) {
    total.same[head] += one.same[head];
    total.other[head] += one.other[head];
  }
}

void divide(PreAccount& total, double count) {
  for (double* value : {&total.embed, &total.bias, &total.scale, &total.whole, &total.bound,
                        &total.magnitude})
    *value /= count;
  for (double& value : total.same) value /= count;
  for (double& value : total.other) value /= count;
}

void Closure::add(double error, double bound, double magnitude) {
  ++sums;
  const auto worse = [&](double worst, double scale) {
    if (error == 0) return worst;
    const double ratio = error / scale;  // NaN must not pass for agreement
    return std::isnan(ratio) ? std::numeric_limits<double>::infinity() : std::max(worst, ratio);
  };
  worst_of_bound = worse(worst_of_bound, bound);
  worst_relative = worse(worst_relative, magnitude);
}

void Closure::add(const Closure& other) {
  sums += other.sums;
  worst_of_bound = std::max(worst_of_bound, other.worst_of_bound);
  worst_relative = std::max(worst_relative, other.worst_relative);
}

void Closure::add(const PreAccount& account) {
  add(std::fabs(account.sum() - account.whole), account.bound, account.magnitude);
}

OutputWeights::OutputWeights(const Model& model)
    : heads_(model.config().heads),
      head_dim_(model.config().head_dim),
      w_(model.layer(0).wo.rows, model.layer(0).wo.cols),
      gram_(heads_, std::vector<double>(head_dim_ * head_dim_)) {
  for (size_t i = 0; i < w_.rows; ++i) {
    const std::vector<float> row = widen_row(model.layer(0).wo, i);
    std::copy(row.begin(), row.end(), w_.row(i));
  }
  parallel_for(heads_, [&](size_t head) {
    for (size_t i = 0; i < w_.rows; ++i) {
      const float* row = w_.row(i) + head * head_dim_;
      for (size_t a = 0; a < head_dim_; ++a)
        for (size_t b = 0; b < head_dim_; ++b)
          gram_[head][a * head_dim_ + b] += double(row[a]) * double(row[b]);
    }
  });
}

double OutputWeights::head_norm(size_t head, const std::vector<double>& x) const {
  double total = 0;
  for (size_t a = 0; a < head_dim_; ++a) {
    double sum = 0;
    for (size_t b = 0; b < head_dim_; ++b) sum += gram_[head][a * head_dim_ + b] * x[b];
    total += x[a] * sum;
  }
  return std::sqrt(std::max(0.0, total));
}

std::vector<double> OutputWeights::product(const std::vector<double>& z) const {
  std::vector<double> y(w_.rows);
  parallel_for(w_.rows, [&](size_t i) {
    for (size_t k = 0; k < w_.cols; ++k) y[i] += double(w_.row(i)[k]) * z[k];
  });
  return y;
}

std::vector<double> OutputWeights::head_product(size_t head, const std::vector<double>& x) const {
  std::vector<double> y(w_.rows);
  for (size_t i = 0; i < w_.rows; ++i)
    for (size_t k = 0; k < head_dim_; ++k) y[i] += double(w_.row(i)[head * head_dim_ + k]) * x[k];
  return y;
}

std::vector<double> OutputWeights::magnitude(const std::vector<double>& z) const {
  std::vector<double> y(w_.rows);
  parallel_for(w_.rows, [&](size_t i) {
    for (size_t k = 0; k < w_.cols; ++k) y[i] += std::fabs(double(w_.row(i)[k]) * z[k]);
  });
  return y;
}

#define SINKREF_LAYER_ZERO(T)                                                                  \
  template std::vector<LayerZeroSequence<T>> record_layer_zero<T>(                             \
      const Model&, const RunOptions&, const std::vector<std::vector<int>>&,                   \
      const std::vector<size_t>&, size_t);                                                     \
  template PreAccount account<T>(const ModelConfig&, const DetectorReader&, size_t,            \
                                 const LayerZeroSequence<T>&, size_t);                         \
  template double rounding<T>(size_t);
SINKREF_LAYER_ZERO(float)
SINKREF_LAYER_ZERO(double)
#undef SINKREF_LAYER_ZERO

}  // namespace sinkref
