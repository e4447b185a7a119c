#pragma once

#include <initializer_list>
#include <span>
#include <vector>

#include "sinkref/kernels.h"
#include "sinkref/tensor.h"

namespace sinkref {

/// Rows from which on a loop over them is shared among threads.
inline constexpr size_t threads_pay_from = 16;

/// RMSNorm (LlamaRMSNorm; Zhang & Sennrich 2019), of each row of x (rows, d):
///     scale = sqrt(mean(x²) + eps),   normalized = x / scale,   result = normalized · weight
/// The sum runs in double over the virtual lanes. Split in three so that hooks see each quantity.
template <class T>
void rmsnorm_scale(const Matrix<T>& x, double eps, Matrix<T>& scale);
template <class T>
void rmsnorm_normalize(const Matrix<T>& x, const Matrix<T>& scale, Matrix<T>& normalized);
template <class T>
void multiply_by_weight(Matrix<T>& normalized, std::span<const float> weight);

/// cos and sin of every position times every frequency, (positions, h/2) in fp32: one fp32 product,
/// then both functions rounded to fp32, as Hugging Face's tables (LlamaRotaryEmbedding).
void rope_table(std::span<const size_t> positions, std::span<const float> inv_freq, Matrix<float>& cos,
                Matrix<float>& sin);

/// RoPE (Su et al. 2021) with half-split pairs (rotate_half): for each head of each row of x,
///     x[i], x[i + h/2]  <-  x[i]·cos_i - x[i + h/2]·sin_i,   x[i + h/2]·cos_i + x[i]·sin_i
template <class T>
void rope(const Matrix<float>& cos, const Matrix<float>& sin, size_t head_dim, Matrix<T>& x);

/// a += b
template <class T>
void add(Matrix<T>& a, const Matrix<T>& b);

/// Neither NaN nor infinite, any of them.
template <class T>
bool all_finite(const Matrix<T>& values);

/// y = x wᵀ + bias; no bias if it is empty.
template <class T>
struct Linear {
  const StoredMatrix& w;
  std::span<const float> bias;
  Matrix<T>& y;
};
/// Several of them of the same x, in one go: the threads have less to wait for.
template <class T>
void linear(const Kernels<T>& kernels, const Matrix<T>& x, std::initializer_list<Linear<T>> layers);

}  // namespace sinkref
