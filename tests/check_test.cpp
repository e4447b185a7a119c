// Every check at the borders of the arithmetic fires. Compiled where there are checks (-Dchecks=true).

#include "sinkref/check.h"

#include <catch2/catch.hpp>
#include <vector>

#include "arithmetic/layers.h"
#include "sinkref/kernels.h"

using namespace sinkref;
using Catch::Contains;

namespace {

StoredMatrix stored(const std::vector<float>& values, size_t rows, size_t cols) {
  return {reinterpret_cast<const std::byte*>(values.data()), DType::F32, rows, cols, 0};
}

std::vector<std::string> all_kernels() {
  std::vector<std::string> names = available_kernels();
  names.push_back("openblas");
  return names;
}

}  // namespace

TEST_CASE("check: a row that a matrix does not have", "[check]") {
  Matrix<float> m(2, 3);
  REQUIRE(m.row(1) == m.values.data() + 3);
  REQUIRE_THROWS_WITH(m.row(2), Contains("r < rows, found 2 and 2"));
  m.rows = 3;  // more than it has memory for
  REQUIRE_THROWS_WITH(m.row(2), Contains("values.size() >= rows * cols, found 6 and 9"));
}

TEST_CASE("check: linear with a wrong width, height or bias", "[check]") {
  const Kernels<float>& kernels = find_kernels<float>("spec");
  const std::vector<float> values(4 * 3, 1.0f), bias(4, 1.0f), short_bias(3, 1.0f);
  const StoredMatrix w = stored(values, 4, 3);
  const auto run = [&](size_t x_cols, size_t y_rows, size_t y_cols, std::span<const float> b) {
    Matrix<float> x(2, x_cols), y(y_rows, y_cols);
    linear<float>(kernels, x, {{w, b, y}});
  };
  REQUIRE_NOTHROW(run(3, 2, 4, bias));
  REQUIRE_NOTHROW(run(3, 2, 4, {}));
  REQUIRE_THROWS_WITH(run(2, 2, 4, bias), Contains("x.cols == layer.w.cols, found 2 and 3"));
  REQUIRE_THROWS_WITH(run(3, 1, 4, bias), Contains("layer.y.rows == x.rows, found 1 and 2"));
  REQUIRE_THROWS_WITH(run(3, 2, 3, bias), Contains("layer.y.cols == layer.w.rows, found 3 and 4"));
  REQUIRE_THROWS_WITH(run(3, 2, 4, short_bias), Contains("layer.bias.size()"));
}

TEST_CASE("check: every entry of every table of kernels", "[check]") {
  for (const std::string& name : all_kernels()) {
    INFO(name);
    const Kernels<float>& k = find_kernels<float>(name);
    const std::vector<float> values(4 * 32, 1.0f);
    std::vector<float> x(64, 1.0f), y(64), row(32, 1.0f);

    const StoredMatrix w = stored(values, 4, 32), narrower = stored(values, 4, 16);
    const std::vector<Product<float>> unequal = {{&w, y.data()}, {&narrower, y.data() + 8}};
    REQUIRE_THROWS_WITH(k.matmuls(x.data(), 2, unequal), Contains("found 16 and 32"));
    StoredMatrix blocks = narrower;
    blocks.dtype = DType::Q4_0;
    REQUIRE_THROWS_WITH(k.matmul(x.data(), 1, blocks, y.data()), Contains("found 16 and 0"));

    // 33 keys take two panels, which a row of 33 scores has no room for.
    REQUIRE_THROWS_WITH(k.scores(x.data(), 1, x.data(), 33, 1, 1.0f, y.data(), 33),
                        Contains("stride >= cache_padded(keys), found 33 and 64"));
    REQUIRE_THROWS_WITH(k.softmax(row.data(), 16, {0, 17}, Softmax::standard), Contains("found 17 and 16"));
    REQUIRE_THROWS_WITH(k.softmax(row.data(), 16, {3, 2}, Softmax::standard), Contains("found 3 and 2"));
    const Visible beyond{0, 33};
    REQUIRE_THROWS_WITH(k.weighted_sum(row.data(), 1, 32, &beyond, x.data(), 1, y.data()),
                        Contains("found 33 and 32"));
  }
}

#ifdef __SANITIZE_ADDRESS__
TEST_CASE("check: memory that is too small, before vector code meets it", "[check]") {
  for (const std::string& name : all_kernels()) {
    INFO(name);
    const Kernels<float>& k = find_kernels<float>(name);
    const std::vector<float> values(4 * 32, 1.0f);
    const StoredMatrix w = stored(values, 4, 32), taller = stored(values, 5, 32);
    std::vector<float> x(2 * 32), y(2 * 4), wide(64), row(15), keys(32 * 8);
    const Visible all{0, 32};
    REQUIRE_NOTHROW(k.matmul(x.data(), 2, w, y.data()));
    REQUIRE_THROWS_WITH(k.matmul(x.data(), 3, w, y.data()), Contains("x of a product: expected memory for 96"));
    REQUIRE_THROWS_WITH(k.matmul(x.data(), 1, taller, y.data()), Contains("w of a product"));
    y.resize(7);
    y.shrink_to_fit();
    REQUIRE_THROWS_WITH(k.matmul(x.data(), 2, w, y.data()), Contains("y of a product"));

    REQUIRE_NOTHROW(k.scores(x.data(), 2, keys.data(), 32, 8, 1.0f, wide.data(), 32));
    REQUIRE_THROWS_WITH(k.scores(row.data(), 2, keys.data(), 32, 8, 1.0f, wide.data(), 32), Contains("q: "));
    REQUIRE_THROWS_WITH(k.scores(x.data(), 2, keys.data(), 32, 9, 1.0f, wide.data(), 32), Contains("k: "));
    REQUIRE_THROWS_WITH(k.scores(x.data(), 3, keys.data(), 32, 8, 1.0f, wide.data(), 32), Contains("scores: "));
    REQUIRE_THROWS_WITH(k.softmax(row.data(), 15, {0, 15}, Softmax::standard), Contains("row of softmax"));
    REQUIRE_THROWS_WITH(k.softmax_largest(row.data(), 16, 0.0f), Contains("row of softmax"));
    REQUIRE_THROWS_WITH(k.weighted_sum(row.data(), 1, 32, &all, keys.data(), 8, wide.data()), Contains("p: "));
    REQUIRE_THROWS_WITH(k.weighted_sum(x.data(), 1, 32, &all, keys.data(), 8, wide.data()), Contains("v: "));
    REQUIRE_THROWS_WITH(k.silu_mul(x.data(), x.data(), 64, row.data()), Contains("post: "));
    REQUIRE_THROWS_WITH(k.silu_mul(row.data(), x.data(), 64, x.data()), Contains("gate: "));
    REQUIRE_THROWS_WITH(k.silu_mul(x.data(), row.data(), 64, x.data()), Contains("up: "));
  }
}
#endif
