#include "sinkref/kernels.h"

#include <bit>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include "arithmetic/dtypes.h"
#include "sinkref/error.h"
#include "sinkref/number.h"

using namespace sinkref;

namespace {

template <class T>
std::vector<T> random_values(size_t n, unsigned seed, double scale = 1.0) {
  std::mt19937 generator(seed);
  std::normal_distribution<double> normal(0.0, scale);
  std::vector<T> values(n);
  for (T& v : values) v = static_cast<T>(normal(generator));
  return values;
}

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

/// The same bits, or NaN in both: which NaN a sum of several gives is the processor's affair.
bool same_values(const std::vector<float>& a, const std::vector<float>& b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i)
    if (std::memcmp(&a[i], &b[i], sizeof(float)) != 0 && !(std::isnan(a[i]) && std::isnan(b[i])))
      return false;
  return true;
}

StoredMatrix stored(const std::vector<float>& values, size_t rows, size_t cols) {
  return {reinterpret_cast<const std::byte*>(values.data()), DType::F32, rows, cols, 0};
}

template <class T>
std::vector<T> matmul(const Kernels<T>& k, const std::vector<T>& x, size_t rows,
                      const StoredMatrix& w) {
  // Poison: an output that is not written, or an input read past its end, shows.
  std::vector<T> y(rows * w.rows, std::numeric_limits<T>::quiet_NaN());
  k.matmul(x.data(), rows, w, y.data());
  return y;
}

const size_t sizes[] = {1, 2, 3, 5, 8, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100, 129, 257};

}  // namespace

TEMPLATE_TEST_CASE("matmul: every vector kernel equals the scalar text bit for bit", "[kernels]",
                   float, double) {
  const Kernels<TestType>& spec = find_kernels<TestType>("spec");
  for (const std::string& name : available_kernels()) {
    const Kernels<TestType>& fast = find_kernels<TestType>(name);
    for (size_t rows : {1, 2, 3, 4, 6, 7, 11, 12, 13, 25, 250})
      for (size_t outputs : sizes)
        for (size_t depth : {size_t(1), size_t(3), size_t(64), size_t(65), size_t(100), size_t(513),
                             size_t(1100)}) {
          if (rows * outputs * depth > 2000000) continue;
          const auto x = random_values<TestType>(rows * depth, 1);
          const auto values = random_values<float>(outputs * depth, 2);
          const StoredMatrix w = stored(values, outputs, depth);
          INFO(name << " rows " << rows << " outputs " << outputs << " depth " << depth);
          REQUIRE(same_bits(matmul(fast, x, rows, w), matmul(spec, x, rows, w)));
        }
  }
}

TEMPLATE_TEST_CASE("matmul: so many rows that they are cut into passes equal the scalar text", "[kernels]", float,
                   double) {
  for (size_t rows : {1023, 1024, 1025, 1030, 2047, 2049, 3100})
    for (size_t outputs : {5, 33}) {
      const size_t depth = 37;
      const auto x = random_values<TestType>(rows * depth, 11);
      const auto values = random_values<float>(outputs * depth, 12);
      const StoredMatrix w = stored(values, outputs, depth);
      const auto expected = matmul(find_kernels<TestType>("spec"), x, rows, w);
      for (const std::string& name : available_kernels()) {
        INFO(name << " rows " << rows << " outputs " << outputs);
        REQUIRE(same_bits(matmul(find_kernels<TestType>(name), x, rows, w), expected));
      }
    }
}

TEST_CASE("matmul: every stored type is widened exactly, alone or among several products",
          "[kernels]") {
  const Kernels<float>& spec = find_kernels<float>("spec");
  std::mt19937 generator(9);
  for (const DTypeRow& row : dtype_table()) {
    if (!row.dtype) continue;
    const DType dtype = *row.dtype;
    const size_t depth = 768, outputs[] = {70, 5, 32};
    const auto x = random_values<float>(40 * depth, 10);
    std::vector<std::vector<std::byte>> bytes;
    std::vector<StoredMatrix> matrices;
    for (size_t n : outputs) {
      StoredMatrix w{nullptr, dtype, n, depth, 0};
      bytes.emplace_back(n * w.row_bytes());
      for (std::byte& b : bytes.back()) b = static_cast<std::byte>(generator());  // NaN included
      w.data = bytes.back().data();
      matrices.push_back(w);
    }
    for (size_t rows : {1, 2, 3, 5, 40}) {
      std::vector<std::vector<float>> y[2];
      for (const std::string& name : available_kernels()) {
        const int side = name != "spec";
        y[side].clear();
        std::vector<Product<float>> products;
        for (size_t n : outputs) y[side].emplace_back(rows * n);
        for (size_t i = 0; i < 3; ++i) products.push_back({&matrices[i], y[side][i].data()});
        find_kernels<float>(name).matmuls(x.data(), rows, products);
        INFO(name << ' ' << dtype_info(dtype).name << " rows " << rows);
        for (size_t i = 0; i < 3; ++i) {
          REQUIRE(same_values(y[side][i], y[0][i]));
          if (name == "spec") REQUIRE(same_values(y[0][i], matmul(spec, x, rows, matrices[i])));
        }
      }
    }
  }
}

TEST_CASE("matmul: its error against double is within the chain's derived bound", "[kernels]") {
  const size_t depth = 4096, outputs = 40, rows = 3;
  const auto x = random_values<float>(rows * depth, 3);
  const auto values = random_values<float>(outputs * depth, 4);
  const StoredMatrix w = stored(values, outputs, depth);
  const auto y = matmul(find_kernels<float>("auto"), x, rows, w);
  // Each term passes at most chain_block roundings in its block, and one per block of its span and
  // per span outside.
  const double u = std::ldexp(1.0, -24);
  const double steps = chain_block + chain_span / chain_block + static_cast<double>(depth) / chain_span;
  for (size_t r = 0; r < rows; ++r)
    for (size_t n = 0; n < outputs; ++n) {
      double exact = 0, magnitude = 0;
      for (size_t k = 0; k < depth; ++k) {
        const double term = double(x[r * depth + k]) * double(values[n * depth + k]);
        exact += term;
        magnitude += std::fabs(term);
      }
      REQUIRE(std::fabs(y[r * outputs + n] - exact) <= steps * u / (1 - steps * u) * magnitude);
    }
}

TEST_CASE("matmul: another order of the sum has other bits, so the tests above can fail",
          "[kernels]") {
  const size_t depth = 576;
  const auto x = random_values<float>(depth, 5), values = random_values<float>(64 * depth, 6);
  const auto y = matmul(find_kernels<float>("spec"), x, 1, stored(values, 64, depth));
  std::vector<float> unblocked(64);
  for (size_t n = 0; n < 64; ++n)
    for (size_t k = 0; k < depth; ++k)
      unblocked[n] = std::fma(x[k], values[n * depth + k], unblocked[n]);
  REQUIRE_FALSE(same_bits(y, unblocked));
}

TEST_CASE("matmul: rows in GGUF's interleaved order are read in Hugging Face's order",
          "[kernels]") {
  const size_t head_dim = 8, outputs = 16, depth = 5;
  const auto plain = random_values<float>(outputs * depth, 7);
  std::vector<float> interleaved(plain.size());
  for (size_t h = 0; h < outputs; h += head_dim)
    for (size_t i = 0; i < head_dim / 2; ++i)
      for (size_t side = 0; side < 2; ++side)
        std::copy_n(plain.begin() + (h + side * head_dim / 2 + i) * depth, depth,
                    interleaved.begin() + (h + 2 * i + side) * depth);
  StoredMatrix w = stored(interleaved, outputs, depth);
  w.interleaved_head_dim = head_dim;
  const auto x = random_values<float>(40 * depth, 8);
  for (const std::string& name : available_kernels())
    for (size_t rows : {1, 3, 40}) {
      const Kernels<float>& k = find_kernels<float>(name);
      REQUIRE(same_bits(matmul(k, x, rows, w), matmul(k, x, rows, stored(plain, outputs, depth))));
    }
}

TEMPLATE_TEST_CASE("kernels: sums of zeros of either sign have the scalar text's sign", "[kernels]",
                   float, double) {
  using T = TestType;
  const Kernels<T>& spec = find_kernels<T>("spec");
  for (const std::string& name : available_kernels()) {
    const Kernels<T>& fast = find_kernels<T>(name);
    for (size_t depth : {1, 40, 513, 1100})
      for (T zero : {T(0), T(-0.0)}) {
        const size_t rows = 8, outputs = 33, stride = cache_padded(depth);
        const std::vector<T> x(rows * stride, zero);
        const auto weights = random_values<float>(outputs * depth, 21);
        const StoredMatrix w = stored(weights, outputs, depth);
        INFO(name << " depth " << depth << " sign " << std::signbit(zero));
        for (size_t some : {size_t(1), rows})
          REQUIRE(same_bits(matmul(fast, x, some, w), matmul(spec, x, some, w)));
        const auto keys = random_values<T>(cache_panel * depth, 22);
        const auto values = random_values<T>(depth * cache_padded(outputs), 23);
        const std::vector<Visible> visible(rows, {0, depth});
        std::vector<T> scores[2], z[2];
        for (int side : {0, 1}) {
          const Kernels<T>& kernel = side ? fast : spec;
          scores[side].resize(rows * cache_panel);
          z[side].resize(rows * outputs);
          kernel.scores(x.data(), rows, keys.data(), cache_panel, depth, T(-1), scores[side].data(),
                        cache_panel);
          kernel.weighted_sum(x.data(), rows, stride, visible.data(), values.data(), outputs,
                              z[side].data());
        }
        REQUIRE(same_bits(scores[0], scores[1]));
        REQUIRE(same_bits(z[0], z[1]));
      }
  }
}

TEMPLATE_TEST_CASE("attention: every vector kernel equals the scalar text bit for bit",
                   "[kernels]", float, double) {
  using T = TestType;
  const Kernels<T>& spec = find_kernels<T>("spec");
  for (const std::string& name : available_kernels()) {
    const Kernels<T>& fast = find_kernels<T>(name);
    for (size_t head_dim : {4, 8, 20, 64, 80, 128})
      for (size_t keys : {1, 2, 7, 16, 17, 64, 65, 130, 600})
        for (size_t window : {5, 1000}) {
          const size_t rows = std::min<size_t>(keys, 30), stride = cache_padded(keys) + 3;
          const auto q = random_values<T>(rows * head_dim, 11);
          // Poison: what lies past the keys, or past a value, must not be used.
          std::vector<T> k(cache_padded(keys) * head_dim, std::numeric_limits<T>::quiet_NaN());
          std::vector<T> v(keys * cache_padded(head_dim), std::numeric_limits<T>::quiet_NaN());
          for (size_t j = 0; j < keys; ++j)
            for (size_t i = 0; i < head_dim; ++i) {
              k[key_index(j, i, head_dim)] = random_values<T>(1, unsigned(j * head_dim + i))[0];
              v[j * cache_padded(head_dim) + i] = T(0.1) * k[key_index(j, i, head_dim)] + T(1);
            }
          std::vector<Visible> visible(rows);
          for (size_t r = 0; r < rows; ++r) {
            visible[r].end = keys - rows + r + 1;
            visible[r].begin = visible[r].end > window ? visible[r].end - window : 0;
          }
          INFO(name << " head_dim " << head_dim << " keys " << keys << " window " << window);
          for (Softmax variant : {Softmax::standard, Softmax::one}) {
            std::vector<T> p[2], z[2];
            for (int side : {0, 1}) {
              const Kernels<T>& kernel = side ? fast : spec;
              p[side].assign(rows * stride, 0);
              z[side].assign(rows * head_dim, std::numeric_limits<T>::quiet_NaN());
              kernel.scores(q.data(), rows, k.data(), keys, head_dim, T(0.3), p[side].data(),
                            stride);
              for (size_t r = 0; r < rows; ++r)
                kernel.softmax(p[side].data() + r * stride, keys, visible[r], variant);
              kernel.weighted_sum(p[side].data(), rows, stride, visible.data(), v.data(), head_dim,
                                  z[side].data());
            }
            for (size_t r = 0; r < rows; ++r)  // not the padding
              REQUIRE(std::memcmp(&p[0][r * stride], &p[1][r * stride], keys * sizeof(T)) == 0);
            REQUIRE(same_bits(z[0], z[1]));
          }
        }
  }
}

TEMPLATE_TEST_CASE("softmax_largest is softmax of the largest, bit for bit, and leaves the row alone", "[kernels]",
                   float, double) {
  using T = TestType;
  for (const std::string& name : available_kernels())
    for (size_t keys : {1, 2, 15, 16, 17, 63, 1000, 1025}) {
      std::vector<T> row = random_values<T>(keys, 7);
      for (T& x : row) x = std::min(T(60), T(40) * x);  // some exponentials vanish, some are denormal
      row[keys / 2] = T(60);
      if (keys > 2) row[0] = T(-1000);
      std::vector<T> copy = row;
      copy.push_back(std::numeric_limits<T>::quiet_NaN());  // behind the row: not to be read
      const T largest = find_kernels<T>(name).softmax_largest(copy.data(), keys, T(60));
      copy.pop_back();
      CHECK(same_bits(copy, row));
      row.resize(cache_padded(keys));
      find_kernels<T>("spec").softmax(row.data(), keys, {0, keys}, Softmax::standard);
      INFO(name << " keys " << keys);
      CHECK(same_bits(std::vector<T>{largest}, std::vector<T>{row[keys / 2]}));
    }
}

TEMPLATE_TEST_CASE("softmax: every vector kernel equals the scalar text where exp becomes denormal, and 0",
                   "[kernels]", float, double) {
  using T = TestType;
  constexpr T smallest = sizeof(T) == 4 ? T(87.3) : T(708.4);  // exp of minus this is the last normal number
  std::vector<T> row(cache_padded(20000), -smallest);
  for (size_t i = 1; i < row.size(); ++i) row[i] += T(0.001) * (T(2000) - T(i));
  row[0] = 0;  // the largest
  std::vector<T> expected = row;
  find_kernels<T>("spec").softmax(expected.data(), row.size(), {0, row.size()}, Softmax::standard);
  CHECK(expected[4000] > 0);
  CHECK(expected[4000] < std::numeric_limits<T>::min());
  CHECK((sizeof(T) == 8 || expected.back() == 0));
  for (const std::string& name : available_kernels()) {
    std::vector<T> p = row;
    find_kernels<T>(name).softmax(p.data(), p.size(), {0, p.size()}, Softmax::standard);
    REQUIRE(same_bits(p, expected));
  }
}

TEST_CASE("attention: values that may not be seen are never touched, not even NaN", "[kernels]") {
  const size_t keys = 100, head_dim = 16, rows = 14;
  std::vector<float> p(rows * 112, 0.01f), v(keys * cache_padded(head_dim), 1.0f);
  std::vector<float> z(rows * head_dim);
  std::vector<Visible> visible(rows);
  for (size_t r = 0; r < rows; ++r) visible[r] = {20, 40 + r};
  for (size_t i = 0; i < keys; ++i)
    if (i < 20 || i >= 40 + rows - 1)
      std::fill_n(v.begin() + i * cache_padded(head_dim), head_dim,
                  std::numeric_limits<float>::quiet_NaN());
  for (const std::string& name : available_kernels()) {
    find_kernels<float>(name).weighted_sum(p.data(), rows, 112, visible.data(), v.data(), head_dim,
                                           z.data());
    for (float value : z) REQUIRE(std::isfinite(value));
  }
}

TEMPLATE_TEST_CASE("silu: every vector kernel equals the scalar text on all kinds of numbers",
                   "[kernels]", float, double) {
  using T = TestType;
  using limits = std::numeric_limits<T>;
  std::vector<T> gate = random_values<T>(100003, 21, 30.0);
  for (T special : {T(0), T(-0.0), limits::infinity(), -limits::infinity(), limits::quiet_NaN(),
                    limits::denorm_min(), -limits::denorm_min(), limits::max(), limits::lowest(),
                    T(87), std::nextafter(T(87), T(100)), T(708), T(-708.1), T(-87.5), T(-88.8), T(-103.9), T(104.5),
                    T(88.7), T(-745.2), T(709.9)})
    // In a vector of its own kind and alone in one: exp has a way for vectors of ordinary values.
    for (T sign : {T(1), T(-1)}) gate.insert(gate.end(), 33, special * sign), gate.resize(gate.size() + 33, T(0.5));
  for (uint64_t bits = 0; bits < uint64_t{1} << 32; bits += 2011)  // all magnitudes, each vector of one
    gate.push_back(static_cast<T>(std::bit_cast<float>(static_cast<uint32_t>(bits))));
  std::vector<T> up = random_values<T>(gate.size(), 22);
  std::fill(up.begin() + 100003, up.end(), T(1));
  std::vector<T> expected(gate.size());
  find_kernels<T>("spec").silu_mul(gate.data(), up.data(), gate.size(), expected.data());
  for (const std::string& name : available_kernels()) {
    std::vector<T> post(gate.size());
    find_kernels<T>(name).silu_mul(gate.data(), up.data(), gate.size(), post.data());
    REQUIRE(same_bits(post, expected));
  }
}

TEST_CASE("exp: within 1 ulp of the exact value over the whole fp32 range", "[kernels]") {
  double worst = 0;
  for (uint32_t bits = 0; bits < 0xff800000u; bits += 997) {
    float x;
    std::memcpy(&x, &bits, sizeof x);
    if (std::isnan(x) || x > 88.7f || x < -103.9f) continue;
    const double exact = std::exp(static_cast<double>(x));
    const float nearest = static_cast<float>(exact);
    const double ulp = static_cast<double>(std::nextafterf(nearest, 1e38f)) - nearest;
    worst = std::max(worst, std::fabs(exp_spec(x) - exact) / ulp);
  }
  CHECK(worst <= 1.0);
  CHECK(worst > 0.5);  // nothing is this good: the measure itself works
  CHECK(exp_spec(0.0f) == 1.0f);
  CHECK(exp_spec(-200.0f) == 0.0f);
  CHECK(exp_spec(-std::numeric_limits<float>::infinity()) == 0.0f);
  CHECK(std::isinf(exp_spec(89.5f)));
  CHECK(std::isnan(exp_spec(std::numeric_limits<float>::quiet_NaN())));
  CHECK(exp_spec(-103.0f) > 0.0f);  // denormals are kept
}

TEST_CASE("cos and sin: correctly rounded for every angle a position can have", "[kernels]") {
  // In double both libraries are good to 1e-16; a float halfway case that close is not expected.
  size_t differing = 0;
  for (uint32_t i = 0; i < 3000000; ++i) {
    const float angle = static_cast<float>(i) * 0.0437f;
    const CosSin found = cos_sin_spec(angle);
    differing += found.cos != static_cast<float>(std::cos(static_cast<double>(angle)));
    differing += found.sin != static_cast<float>(std::sin(static_cast<double>(angle)));
  }
  CHECK(differing == 0);
}

TEST_CASE("find_kernels: an unknown kernel is refused with the names that exist", "[kernels]") {
  REQUIRE_THROWS_AS(find_kernels<float>("sse9"), InputError);
  REQUIRE_THROWS_WITH(find_kernels<float>("sse9"), Catch::Contains("spec"));
}
