// Metrics, the logit lens, and the split of an attention score over what wrote the residual stream.

#include <catch2/catch.hpp>
#include <cmath>
#include <numeric>

#include "sinkref/attribution.h"
#include "sinkref/error.h"
#include "sinkref/lens.h"
#include "sinkref/metric.h"

using namespace sinkref;

namespace {

const std::vector<int> tokens = {1, 5, 9, 7, 7, 7, 100, 3, 250, 8, 61, 62};

Model open_tiny(const char* name) { return Model::open(std::string(SINKREF_SOURCE_DIR "/reference_outputs/") + name); }

/// A run's row of one hook.
template <class T>
std::vector<T> row_of(const Model& model, Hook hook, size_t position) {
  std::vector<T> row;
  Hooks<T> hooks;
  hooks.add(hook, [&](const Activation<T>& a) {
    for (size_t r = 0; r < a.rows.size(); ++r)
      if (a.rows[r].position == position) row.assign(a.row(r), a.row(r) + a.width);
  });
  run(model, {}, {tokens}, hooks);
  return row;
}

template <class T>
double norm_of(const Model& model, Hook hook, size_t position, size_t head) {
  const std::vector<T> row = row_of<T>(model, hook, position);
  const size_t h = model.config().head_dim;
  double squares = 0;
  for (size_t i = head * h; i < (head + 1) * h; ++i) squares += double(row[i]) * double(row[i]);
  return std::sqrt(squares);
}

}  // namespace

TEST_CASE("metrics: each is its formula, with the same bits from every kernel", "[metric]") {
  const std::vector<float> row = {0.5f, -2, 7.25f, 7, 0, 3, -1, 2.5f, 6, 1, 1, 1, 1, 1, 1, 4, 5};
  double sum = 0, squares = 0;
  for (const float x : row) {
    sum += std::exp(double(x));
    squares += double(x) * double(x);
  }
  for (const char* kernel : {"auto", "spec"}) {
    const Kernels<float>& kernels = find_kernels<float>(kernel);
    const auto measured = [&](Metric::Kind kind) { return measure<float>({kind, 3, 8}, kernels, row); };
    CHECK(measured(Metric::Kind::logit_difference) == 1.0);
    CHECK(measured(Metric::Kind::norm) == std::sqrt(squares));  // exact: all are multiples of 1/4
    // The softmax of fp32 is good to 2e-7.
    CHECK(std::fabs(measured(Metric::Kind::probability) / (std::exp(7.0) / sum) - 1) < 3e-7);
    CHECK(std::fabs(measured(Metric::Kind::log_probability) - (7.0 - std::log(sum))) < 3e-7);
    CHECK(measured(Metric::Kind::probability) ==
          measure<float>({Metric::Kind::probability, 3, 0}, find_kernels<float>("spec"), row));
  }
  CHECK_THROWS_AS(check_metric({Metric::Kind::logit_difference, 3, 17}, row.size()), InputError);
  CHECK_NOTHROW(check_metric({Metric::Kind::probability, 3, 17}, row.size()));
}

TEST_CASE("lens: the largest and the rank agree, of equals the first", "[lens]") {
  const std::vector<float> row = {1, 5, 3, 5, -2, 3};
  CHECK(largest<float>(row, 4) == std::vector<size_t>{1, 3, 2, 5});
  CHECK(largest<float>(row, 99).size() == row.size());
  const std::vector<size_t> all = largest<float>(row, row.size());
  for (size_t i = 0; i < all.size(); ++i) CHECK(rank_of<float>(row, all[i]) == i + 1);
}

TEST_CASE("lens: the last layer's logits are the model's, whatever the chunk and the kernel", "[lens]") {
  const Model model = open_tiny("tiny_llama2");
  const std::vector<size_t> positions = {11, 0, 4};
  std::vector<Matrix<float>> first;
  for (const auto& [kernel, chunk] : {std::pair{"auto", size_t{128}}, {"auto", size_t{2}}, {"spec", size_t{5}}}) {
    RunOptions options;
    options.kernel = kernel;
    options.chunk = chunk;
    std::vector<Matrix<float>> layers;
    lens<float>(model, options, tokens, positions, [&](size_t layer, const Matrix<float>& logits) {
      CHECK(layer == layers.size());
      layers.push_back(logits);
    });
    REQUIRE(layers.size() == model.config().layers);
    if (first.empty()) first = layers;
    for (size_t layer = 0; layer < layers.size(); ++layer) CHECK(layers[layer].values == first[layer].values);
  }
  for (size_t i = 0; i < positions.size(); ++i) {
    const std::vector<float> logits = row_of<float>(model, {HookPoint::Logits, 0}, positions[i]);
    CHECK(std::equal(logits.begin(), logits.end(), first.back().row(i)));
    CHECK_FALSE(std::equal(logits.begin(), logits.end(), first[0].row(i)));
  }
  const auto ignore = [](size_t, const Matrix<float>&) {};
  CHECK_THROWS_AS(lens<float>(model, {}, tokens, {12}, ignore), InputError);
  CHECK_THROWS_AS(lens<float>(model, {}, tokens, {}, ignore), InputError);
}

TEMPLATE_TEST_CASE("attribution: an attention score is the sum of its writers within the derived bound", "[attribution]",
                   float, double) {
  const double closest = sizeof(TestType) == 4 ? 5e-4 : 1e-9;  // the bound is no blank cheque
  for (const char* name : {"tiny_llama1", "tiny_llama2", "tiny_llama3", "tiny_mistral"}) {
    const Model model = open_tiny(name);
    const ModelConfig& c = model.config();
    for (const size_t layer : {size_t{0}, size_t{1}, c.layers - 1})
      for (size_t head = 0; head < c.heads; ++head)
        for (const auto& [query, key] : {std::pair{size_t{11}, size_t{5}}, {size_t{6}, size_t{6}}, {size_t{5}, size_t{0}}})
          for (const Writers writers : {Writers::layers, Writers::heads}) {
            INFO(name << " " << layer << "." << head << ", " << query << " " << key);
            const ScoreAttribution a = attribute_score<TestType>(model, {}, tokens, layer, head, query, key, writers);
            double sum = 0;
            for (size_t i = 0; i < a.values.rows; ++i) sum += std::accumulate(a.values[i], a.values[i] + a.values.cols, 0.0);
            CHECK(std::fabs(a.score - sum) <= a.bound);
            CHECK(a.bound < closest * norm_of<TestType>(model, {HookPoint::RotQ, layer}, query, head) *
                                norm_of<TestType>(model, {HookPoint::RotK, layer}, key, head * c.kv_heads / c.heads) /
                                std::sqrt(double(c.head_dim)));
            CHECK(a.values.rows == a.query_labels.size());
            CHECK(a.values.cols == a.key_labels.size());
            const size_t of_layer = 1 + (writers == Writers::heads ? c.heads : 1);
            CHECK(a.values.rows >= 1 + layer * of_layer);
          }
  }
}

TEST_CASE("attribution: what the model does not have is refused", "[attribution]") {
  const Model model = open_tiny("tiny_mistral");
  const auto ask = [&](size_t layer, size_t head, size_t query, size_t key) {
    attribute_score<float>(model, {}, tokens, layer, head, query, key, Writers::heads);
  };
  CHECK_THROWS_AS(ask(99, 0, 1, 0), InputError);
  CHECK_THROWS_AS(ask(0, 99, 1, 0), InputError);
  CHECK_THROWS_AS(ask(0, 0, 12, 0), InputError);
  CHECK_THROWS_AS(ask(0, 0, 3, 4), InputError);
  CHECK_NOTHROW(ask(0, 0, 4, 4));
}
