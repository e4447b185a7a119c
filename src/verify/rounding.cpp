#include "verify/rounding.h"

#include <algorithm>
#include <cmath>

#include "base/threads.h"
#include "model/tensors.h"

namespace sinkref {

namespace {

constexpr double u = 0x1p-24;
constexpr size_t followed = 2;  // sequences
constexpr size_t weight_block = 2048;  // rows of a matrix whose squares are held at once

double rounded_to(NumberType type) {
  const double unit = type == NumberType::fp16 ? 0x1p-11 : type == NumberType::bf16 ? 0x1p-8 : 0;
  return unit / std::sqrt(3.0);
}

bool holds_exactly(NumberType type, DType stored) {
  return (type == NumberType::fp16 && stored == DType::F16) ||
         (type == NumberType::bf16 && stored == DType::BF16);
}

/// Variance of a sum of n products in a plain loop, from Σ(x w)² and the sum itself.
double chain_variance(double n, double squares, double sum) {
  return u * u * ((n / 8 + 1) * squares + n / 12 * sum * sum);
}

double square(double x) { return x * x; }

}  // namespace

Rounding::Rounding(const Model& model, const std::string& kernel, CandidateArithmetic arithmetic)
    : model_(model),
      kernels_(find_kernels<float>(kernel)),
      type_(arithmetic.activations),
      half_(rounded_to(arithmetic.activations)),
      half_cache_(rounded_to(arithmetic.cache)),
      final_norm_(model.final_norm()) {
  for (size_t i = 0; i < followed; ++i) caches_.emplace_back(model.config(), model.config().layers, 1);
}

void Rounding::begin(size_t first, size_t count) {
  first_ = first;
  count_ = count;
  for (KvCache<float>& cache : caches_) {
    cache.length = first;
    cache.reserve(first + count);
  }
}

const Matrix<float>& Rounding::step(const Activation<double>& a) {
  sigma_ = Matrix<float>(followed * count_, a.width);
  switch (hook_info(a.hook.point).kind) {
    case HookKind::copy: break;
    case HookKind::stream: relative(a, std::hypot(0.5 * u, half_)); break;
    case HookKind::norm_scale: relative(a, 3 * u); break;
    case HookKind::normalized: relative(a, std::hypot(1.5 * u, half_)); break;
    case HookKind::product: product(a); break;
    case HookKind::rotated: rotated(a); break;
    case HookKind::attended: attended(a); break;
    case HookKind::neurons: relative(a, std::hypot(3 * u, 1.5 * half_)); break;
    case HookKind::scores:
    case HookKind::pattern: break;  // one head at a time, by attention_row()
  }
  return sigma_;
}

void Rounding::relative(const Activation<double>& a, double factor) {
  parallel_for(sigma_.rows, [&](size_t r) {
    for (size_t i = 0; i < a.width; ++i)
      sigma_.row(r)[i] = static_cast<float>(factor * std::fabs(a.row(r)[i]));
  });
}

/// `input_is_rounded`: the product with the norm's weight is stored before it meets this matrix.
void Rounding::product(const Activation<double>& a) {
  const StoredMatrix& w = matrix_of(model_, a.hook);
  // A norm's result is rounded when its weight is applied; z and the neurons are as their hooks show them.
  const bool input_is_rounded = a.hook.point != HookPoint::AttnOut && a.hook.point != HookPoint::MlpOut;
  const double n = static_cast<double>(w.cols);
  const double narrow = half_ * half_ * (input_is_rounded + !holds_exactly(type_, w.dtype));
  std::vector<float> squares(std::min(weight_block, w.rows) * w.cols);
  Matrix<float> sums;
  for (size_t begin = 0; begin < w.rows; begin += weight_block) {
    const size_t block = std::min(weight_block, w.rows - begin);
    parallel_for(block, [&](size_t i) {
      float* row = squares.data() + i * w.cols;
      widen(w.dtype, w.row(begin + i), 0, w.cols, row);
      for (size_t j = 0; j < w.cols; ++j) row[j] *= row[j];
    });
    sums = Matrix<float>(sigma_.rows, block);
    kernels_.matmul(x_.values.data(), sigma_.rows,
                    {reinterpret_cast<const std::byte*>(squares.data()), DType::F32, block, w.cols,
                     0},
                    sums.values.data());
    parallel_for(sigma_.rows, [&](size_t r) {
      for (size_t i = 0; i < block; ++i) {
        const double s = sums.row(r)[i], y = a.row(r)[begin + i];
        const double variance = chain_variance(n, s, y) + u * u * s + narrow * s + square(half_ * y);
        sigma_.row(r)[begin + i] = static_cast<float>(std::sqrt(variance));
      }
    });
  }
}

void Rounding::rotated(const Activation<double>& a) {
  const size_t h = model_.config().head_dim;
  // cos, sin, two products and a sum, of which narrow arithmetic stores four.
  const double factor = u * u + 3 * half_ * half_;
  for (size_t r = 0; r < sigma_.rows; ++r)
    for (size_t i = 0; i < a.width; ++i) {
      const size_t in_head = i % h;
      const double other = a.row(r)[in_head < h / 2 ? i + h / 2 : i - h / 2];
      const double turn = angle(in_head % (h / 2), a.rows[r].position);
      sigma_.row(r)[i] = static_cast<float>(
          std::sqrt(factor * (square(a.row(r)[i]) + square(other)) + square(turn * other)));
    }
}

void Rounding::attended(const Activation<double>& a) {
  const size_t h = model_.config().head_dim;
  parallel_for(sigma_.rows, [&](size_t r) {
    const double n = static_cast<double>(a.rows[r].position + 1);
    for (size_t head = 0; head < a.width; head += h) {
      double modelled = 0, seen = 0;
      for (size_t i = head; i < head + h; ++i) {
        const double terms = z_terms_.row(r)[i], z = a.row(r)[i];
        const double variance = chain_variance(n, terms, z) + 2 * square(half_cache_) * terms +
                                square(half_ * z);
        sigma_.row(r)[i] = static_cast<float>(std::sqrt(variance));
        modelled += variance;
        seen += square(z_loop_.row(r)[i] - z);
      }
      if (seen <= modelled) continue;
      const float more = static_cast<float>(std::sqrt(seen / modelled));
      for (size_t i = head; i < head + h; ++i) sigma_.row(r)[i] *= more;
    }
  });
}

const Matrix<float>& Rounding::scores(const Activation<double>& a) {
  const ModelConfig& c = model_.config();
  const size_t h = c.head_dim, sequence = a.rows[0].sequence;
  const size_t first_row = sequence * count_ + a.rows[0].position - first_;
  std::vector<float> q(a.rows.size() * h);
  for (size_t r = 0; r < a.rows.size(); ++r)
    std::copy_n(queries_.row(first_row + r) + a.head * h, h, &q[r * h]);
  const size_t stride = cache_padded(a.width) + sum_lanes;
  std::vector<float> products(a.rows.size() * stride);
  kernels_.scores(q.data(), a.rows.size(),
                  caches_[sequence].keys(a.hook.layer, a.head / (c.heads / c.kv_heads)), a.width, h,
                  1.0f / static_cast<float>(h), products.data(), stride);
  score_sigma_ = Matrix<float>(a.rows.size(), a.width);
  const double n = static_cast<double>(h);
  for (size_t r = 0; r < a.rows.size(); ++r)
    for (size_t j = 0; j < a.width; ++j) {
      const double s = a.row(r)[j], terms = products[r * stride + j];
      const double variance = chain_variance(n, terms, s) + square(u * s) +
                              2 * square(half_cache_) * terms + 2 * square(half_ * s);
      score_sigma_.row(r)[j] =
          std::isfinite(s) ? static_cast<float>(std::sqrt(variance)) : 0.0f;
    }
  return score_sigma_;
}

double Rounding::pattern(double probability, double below) const {
  return probability * std::hypot((3 + below) * u, half_);
}

void Rounding::observe_pattern(const Activation<double>& a) {
  const ModelConfig& c = model_.config();
  const size_t h = c.head_dim, sequence = a.rows[0].sequence, step = cache_padded(h);
  for (Matrix<float>* sums : {&z_terms_, &z_loop_})
    if (sums->rows != followed * count_ || sums->cols != c.heads * h)
      *sums = Matrix<float>(followed * count_, c.heads * h);
  const float* values = caches_[sequence].values(a.hook.layer, a.head / (c.heads / c.kv_heads));
  parallel_for(a.rows.size(), [&](size_t r) {
    const size_t row = sequence * count_ + a.rows[r].position - first_;
    float* terms = z_terms_.row(row) + a.head * h;
    float* loop = z_loop_.row(row) + a.head * h;
    std::fill_n(terms, h, 0.0f);
    std::fill_n(loop, h, 0.0f);
    for (size_t j = 0; j <= a.rows[r].position; ++j) {
      const float p = static_cast<float>(a.row(r)[j]);
      const float* v = values + j * step;
      for (size_t i = 0; i < h; ++i) {
        const float term = p * v[i];
        loop[i] += term;
        terms[i] += term * term;
      }
    }
  });
}

void Rounding::observe(const Activation<double>& a) {
  const HookKind kind = hook_info(a.hook.point).kind;
  if (kind == HookKind::normalized) {
    keep_squares(a, x_);
    const std::vector<float>& w = norm_weight(a.hook);
    for (size_t r = 0; r < x_.rows; ++r)
      for (size_t i = 0; i < x_.cols; ++i) x_.row(r)[i] *= w[i] * w[i];
  }
  if (kind == HookKind::attended || kind == HookKind::neurons) keep_squares(a, x_);
  if (a.hook.point == HookPoint::RotQ) keep_squares(a, queries_);
  if (a.hook.point == HookPoint::RotK) store_keys(a);
  if (a.hook.point == HookPoint::V) keep_values(a);
}

const std::vector<float>& Rounding::norm_weight(Hook hook) {
  if (hook.point == HookPoint::LnFinalNormalized) return final_norm_;
  const LayerWeights& w = model_.layer(hook.layer);
  return hook.point == HookPoint::Ln1Normalized ? w.ln1 : w.ln2;
}

void Rounding::keep_squares(const Activation<double>& a, Matrix<float>& into) {
  into = Matrix<float>(followed * count_, a.width);
  parallel_for(into.rows, [&](size_t r) {
    for (size_t i = 0; i < a.width; ++i) into.row(r)[i] = static_cast<float>(square(a.row(r)[i]));
  });
}

void Rounding::keep_values(const Activation<double>& a) {
  v_ = Matrix<float>(followed * count_, a.width);
  for (size_t r = 0; r < v_.rows; ++r) std::copy_n(a.row(r), a.width, v_.row(r));
}

/// Values come before rotated keys: both go into the cache together.
void Rounding::store_keys(const Activation<double>& a) {
  const size_t h = model_.config().head_dim;
  Matrix<float> keys;
  keep_squares(a, keys);
  for (size_t r = 0; r < keys.rows; ++r)
    for (size_t head = 0; head < model_.config().kv_heads; ++head)
      caches_[a.rows[r].sequence].store(a.hook.layer, head, a.rows[r].position,
                                         keys.row(r) + head * h, v_.row(r) + head * h);
}

double Rounding::angle(size_t i, size_t position) const {
  return static_cast<double>(position) * static_cast<double>(model_.inv_freq()[i]) *
         static_cast<double>(i + 2) * u;
}

}  // namespace sinkref
