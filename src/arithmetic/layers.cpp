#include "arithmetic/layers.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <limits>

#include "base/threads.h"
#include "sinkref/number.h"

namespace sinkref {

namespace {

constexpr size_t lanes = 16;  // of a loop that the compiler shall vectorise

template <class T>
double sum_of_squares(const T* x, size_t n) {
  std::array<double, sum_lanes> lane{};
  size_t i = 0;
  for (; i + sum_lanes <= n; i += sum_lanes)
    for (size_t j = 0; j < sum_lanes; ++j)
      lane[j] += static_cast<double>(x[i + j]) * static_cast<double>(x[i + j]);
  for (size_t j = 0; i + j < n; ++j)
    lane[j] += static_cast<double>(x[i + j]) * static_cast<double>(x[i + j]);
  return add_lanes(lane);
}

/// The largest of values, in lanes, which compilers vectorise.
template <class T>
T largest(std::span<const T> values) {
  std::array<T, lanes> lane;
  lane.fill(-std::numeric_limits<T>::infinity());
  size_t i = 0;
  for (; i + lanes <= values.size(); i += lanes)
    for (size_t j = 0; j < lanes; ++j) lane[j] = values[i + j] > lane[j] ? values[i + j] : lane[j];
  for (size_t j = 0; i + j < values.size(); ++j)
    lane[j] = values[i + j] > lane[j] ? values[i + j] : lane[j];
  return *std::max_element(lane.begin(), lane.end());
}

}  // namespace

template <class T>
void rmsnorm_scale(const Matrix<T>& x, double eps, Matrix<T>& scale) {
  parallel_for(x.rows, [&](size_t r) {
    const double mean = sum_of_squares(x.row(r), x.cols) / static_cast<double>(x.cols);
    scale.row(r)[0] = static_cast<T>(std::sqrt(mean + eps));
  }, threads_pay_from);
}

template <class T>
void rmsnorm_normalize(const Matrix<T>& x, const Matrix<T>& scale, Matrix<T>& normalized) {
  parallel_for(x.rows, [&](size_t r) {
    const T* from = x.row(r);
    const T divisor = scale.row(r)[0];
    T* to = normalized.row(r);
    for (size_t i = 0; i < x.cols; ++i) to[i] = from[i] / divisor;
  }, threads_pay_from);
}

template <class T>
void multiply_by_weight(Matrix<T>& normalized, std::span<const float> weight) {
  parallel_for(normalized.rows, [&](size_t r) {
    T* x = normalized.row(r);
    for (size_t i = 0; i < weight.size(); ++i) x[i] *= static_cast<T>(weight[i]);
  }, threads_pay_from);
}

void rope_table(std::span<const size_t> positions, std::span<const float> inv_freq, Matrix<float>& cos,
                Matrix<float>& sin) {
  cos = sin = Matrix<float>(positions.size(), inv_freq.size());
  parallel_for(positions.size(), [&](size_t r) {
    for (size_t i = 0; i < inv_freq.size(); ++i) {
      const CosSin value = cos_sin_spec(static_cast<float>(positions[r]) * inv_freq[i]);
      cos.row(r)[i] = value.cos;
      sin.row(r)[i] = value.sin;
    }
  }, threads_pay_from);
}

template <class T>
void rope(const Matrix<float>& cos, const Matrix<float>& sin, size_t head_dim, Matrix<T>& x) {
  const size_t half = head_dim / 2;
  parallel_for(x.rows, [&](size_t r) {
    for (size_t head = 0; head < x.cols; head += head_dim)
      for (size_t i = 0; i < half; ++i) {
        T& first = x.row(r)[head + i];
        T& second = x.row(r)[head + half + i];
        const T c = cos.row(r)[i], s = sin.row(r)[i];
        const T rotated = first * c - second * s;
        second = second * c + first * s;
        first = rotated;
      }
  }, threads_pay_from);
}

template <class T>
void add(Matrix<T>& a, const Matrix<T>& b) {
  parallel_for(a.rows, [&](size_t r) {
    T* to = a.row(r);
    const T* from = b.row(r);
    for (size_t i = 0; i < a.cols; ++i) to[i] += from[i];
  }, threads_pay_from);
}

template <class T>
bool all_finite(const Matrix<T>& values) {
  std::atomic<bool> finite = true;
  parallel_for(values.rows, [&](size_t r) {
    const T* row = values.row(r);
    // 0·x is a zero of some sign, but NaN for infinity and NaN. Lanes, for compilers to vectorise.
    std::array<T, lanes> zero{};
    size_t i = 0;
    for (; i + lanes <= values.cols; i += lanes)
      for (size_t j = 0; j < lanes; ++j) zero[j] += T(0) * row[i + j];
    for (; i < values.cols; ++i) zero[0] += T(0) * row[i];
    if (!std::all_of(zero.begin(), zero.end(), [](T x) { return x == 0; })) finite = false;
  }, threads_pay_from);
  return finite;
}

template <class T>
size_t argmax(std::span<const T> values) {
  constexpr size_t stretch = 1024;  // whose largest is known before its place is looked for
  T most = -std::numeric_limits<T>::infinity();
  size_t begin = 0;
  for (size_t i = 0; i < values.size(); i += stretch) {
    const T here = largest(values.subspan(i, std::min(stretch, values.size() - i)));
    if (!(here > most)) continue;
    most = here;
    begin = i;
  }
  const auto first = std::find(values.begin() + static_cast<std::ptrdiff_t>(begin), values.end(), most);
  return first == values.end() ? 0 : static_cast<size_t>(first - values.begin());
}

template <class T>
void linear(const Kernels<T>& kernels, const Matrix<T>& x,
            std::initializer_list<Linear<T>> layers) {
  if (x.rows == 0) return;
  std::vector<Product<T>> products;
  for (const Linear<T>& layer : layers) {
    SINKREF_CHECK(x.cols, ==, layer.w.cols);
    SINKREF_CHECK(layer.y.rows, ==, x.rows);
    SINKREF_CHECK(layer.y.cols, ==, layer.w.rows);
    SINKREF_CHECK(layer.bias.size() % layer.w.rows, ==, 0);  // none, or one for each output
    SINKREF_CHECK(layer.bias.size(), <=, layer.w.rows);
  }
  for (const Linear<T>& layer : layers) products.push_back({&layer.w, layer.y.values.data()});
  kernels.matmuls(x.values.data(), x.rows, products);
  for (const Linear<T>& layer : layers) {
    if (layer.bias.empty()) continue;
    for (size_t r = 0; r < layer.y.rows; ++r)
      for (size_t i = 0; i < layer.y.cols; ++i)
        layer.y.row(r)[i] += static_cast<T>(layer.bias[i]);
  }
}

#define SINKREF_LAYERS(T)                                                                      \
  template void rmsnorm_scale<T>(const Matrix<T>&, double, Matrix<T>&);                        \
  template void rmsnorm_normalize<T>(const Matrix<T>&, const Matrix<T>&, Matrix<T>&);          \
  template void multiply_by_weight<T>(Matrix<T>&, std::span<const float>);                     \
  template void rope<T>(const Matrix<float>&, const Matrix<float>&, size_t, Matrix<T>&);       \
  template void add<T>(Matrix<T>&, const Matrix<T>&);                                          \
  template bool all_finite<T>(const Matrix<T>&);                                               \
  template size_t argmax<T>(std::span<const T>);                                               \
  template void linear<T>(const Kernels<T>&, const Matrix<T>&, std::initializer_list<Linear<T>>);
SINKREF_LAYERS(float)
SINKREF_LAYERS(double)
#undef SINKREF_LAYERS

}  // namespace sinkref
