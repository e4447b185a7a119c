// OpenBLAS as a third opinion: whatever order it sums in, it must obey the bound that every order of
// a sum obeys, and so must the distance between it and the scalar text.

#include <catch2/catch.hpp>
#include <cmath>
#include <random>

#include "sinkref/error.h"
#include "sinkref/kernels.h"

using namespace sinkref;

namespace {

std::vector<std::byte> random_bytes(size_t n, unsigned seed) {
  std::mt19937 generator(seed);
  std::vector<std::byte> bytes(n);
  // No byte above 0x3f: read as fp16 or bf16, whole or as a block's scale, it is a finite number.
  for (std::byte& b : bytes) b = static_cast<std::byte>(generator() & 0x3fu);
  return bytes;
}

std::vector<float> random_values(size_t n, unsigned seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(n);
  for (float& v : values) v = normal(generator);
  return values;
}

/// The largest |y - exact| / (γ_K Σ|x·w|), with γ_K = K·u / (1 - K·u): at most 1 for any order of a
/// sum of K products, fused or not (Higham 2002, (3.5)).
double share_of_bound(const std::vector<float>& x, size_t rows, const StoredMatrix& w,
                      const std::vector<float>& y) {
  const double nu = static_cast<double>(w.cols) * std::ldexp(1.0, -24);
  double worst = 0;
  for (size_t n = 0; n < w.rows; ++n) {
    const std::vector<float> weights = widen_row(w, n);
    for (size_t r = 0; r < rows; ++r) {
      double exact = 0, magnitude = 0;
      for (size_t k = 0; k < w.cols; ++k) {
        const double term = double(x[r * w.cols + k]) * double(weights[k]);
        exact += term;
        magnitude += std::fabs(term);
      }
      const double error = std::fabs(double(y[r * w.rows + n]) - exact);
      const double share = error / (nu / (1 - nu) * magnitude);
      worst = share <= worst ? worst : share;  // NaN is kept
      if (std::isnan(share)) return share;
    }
  }
  return worst;
}

}  // namespace

TEST_CASE("openblas: its products obey the bound of any order of a sum, for every stored type",
          "[openblas]") {
  const size_t cols = 768;
  for (DType dtype : {DType::F32, DType::F16, DType::BF16, DType::Q8_0, DType::Q4_1, DType::Q6_K})
    for (size_t outputs : {1, 40, 1100})
      for (size_t rows : {1, 2, 13}) {
        const DTypeInfo& info = dtype_info(dtype);
        std::vector<std::byte> bytes;
        std::vector<float> plain = random_values(outputs * cols, 3);
        if (dtype == DType::F32)
          bytes.assign(reinterpret_cast<std::byte*>(plain.data()),
                       reinterpret_cast<std::byte*>(plain.data() + plain.size()));
        else
          bytes = random_bytes(outputs * cols / info.block * info.bytes, 3);
        const StoredMatrix w{bytes.data(), dtype, outputs, cols, outputs == 40 ? size_t(8) : 0};
        const auto x = random_values(rows * cols, 4);
        std::vector<float> y(rows * outputs, std::nanf(""));
        find_kernels<float>("openblas").matmul(x.data(), rows, w, y.data());
        INFO(info.name << " outputs " << outputs << " rows " << rows);
        CHECK(share_of_bound(x, rows, w, y) <= 1);
        find_kernels<float>("auto").matmul(x.data(), rows, w, y.data());
        CHECK(share_of_bound(x, rows, w, y) <= 1);
      }
}

TEST_CASE("openblas: the bound rejects a lost term, NaN and an output that was not written",
          "[openblas]") {
  const size_t cols = 300;
  const auto values = random_values(cols, 5), x = random_values(cols, 6);
  const StoredMatrix w{reinterpret_cast<const std::byte*>(values.data()), DType::F32, 1, cols, 0};
  float sum = 0;
  for (size_t k = 0; k < cols; ++k) sum += x[k] * values[k];
  CHECK(share_of_bound(x, 1, w, {sum}) <= 1);
  CHECK_FALSE(share_of_bound(x, 1, w, {sum - x[7] * values[7]}) <= 1);
  CHECK_FALSE(share_of_bound(x, 1, w, {std::nanf("")}) <= 1);
}

TEST_CASE("openblas: is found by name, but is not among the kernels that give spec's bits",
          "[openblas]") {
  CHECK(std::string(find_kernels<float>("openblas").name) == "openblas");
  CHECK(std::string(find_kernels<double>("openblas").name) == "openblas");
  CHECK(std::string(find_kernels<float>("auto").name) != "openblas");
  for (const std::string& name : available_kernels()) CHECK(name != "openblas");
}
