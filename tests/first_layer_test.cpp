// The first attention layer: accounts that close, shares that add up, and what the definitions say
// of cases whose answer is known.

#include "measure/first_layer/first_layer.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "measure/cluster_attack/cluster_attack.h"
#include "sinkref/error.h"

using namespace sinkref;

namespace {

const std::string outputs = SINKREF_SOURCE_DIR "/reference_outputs/";
const char* const tiny_models[] = {"tiny_llama1", "tiny_llama2", "tiny_llama3", "tiny_mistral"};

FirstLayerInputs inputs_for(size_t texts) {
  SinkInputs sink;
  sink.lone = {1};
  sink.text = {1, 7, 9, 30, 12, 12, 5};
  sink.words = {{"seven", {1, 9, 40}, 7}, {"nine", {1}, 9}};
  sink.repeats = 40;
  std::vector<int> ordinary;
  for (int id = 3; id < 60; ++id) ordinary.push_back(id);
  FirstLayerInputs inputs = first_layer_inputs(ordinary, sink, {});
  inputs.texts.resize(texts);
  inputs.readers.resize(6);
  inputs.others.resize(5);
  return inputs;
}

FirstLayerResult analyse(const Model& model, const FirstLayerInputs& inputs,
                         const std::string& precision, const RunOptions& options = {}) {
  Progress quiet;
  return precision == "fp64" ? analyse_first_layer<double>(model, options, inputs, quiet)
                             : analyse_first_layer<float>(model, options, inputs, quiet);
}

}  // namespace

TEST_CASE("first layer: every pre-activation is the sum of its parts, within the rounding bound",
          "[first_layer]") {
  for (const char* name : tiny_models) {
    const Model model = Model::open(outputs + name);
    const FirstLayerInputs inputs = inputs_for(50);
    for (const std::string precision : {"fp32", "fp64"}) {
      INFO(name << " " << precision);
      const FirstLayerResult r = analyse(model, inputs, precision);
      REQUIRE(r.closure.sums > 50 * 3 * first_layer_detectors);
      CHECK(r.closure.worst_of_bound <= 1);
      if (precision == "fp64") CHECK(r.closure.worst_relative <= 1e-12);
      for (const Detector& detector : r.detectors)
        for (size_t p = 0; p < 3; ++p) {
          const PreAccount& account = detector.account[p];
          CHECK(std::fabs(account.sum() - account.whole) <= account.bound);
          CHECK(std::fabs(account.whole - detector.mean[p]) <= 1e-12 * account.magnitude);
          // The check can fail: a head's part that is 1e-5 of the terms off is seen.
          PreAccount wrong = account;
          wrong.other[1] += (precision == "fp64" ? 1e-10 : 1e-3) * account.magnitude;
          Closure closure;
          closure.add(wrong);
          CHECK(closure.worst_of_bound > 1);
        }
    }
  }
}

TEST_CASE("first layer: a sum that is not a number never passes as closed", "[first_layer]") {
  Closure closure;
  closure.add(0, 0, 0);
  CHECK(closure.worst_of_bound == 0);
  closure.add(std::numeric_limits<double>::quiet_NaN(), 1, 1);
  closure.add(0, 1, 1);
  CHECK(closure.worst_of_bound > 1);
  CHECK(closure.worst_relative > 1);
}

TEST_CASE("first layer: attention and shares add up to one", "[first_layer]") {
  for (const char* name : tiny_models) {
    INFO(name);
    const FirstLayerResult r = analyse(Model::open(outputs + name), inputs_for(20), "fp32");
    for (const HeadByPosition& head : r.heads) {
      CHECK(head.other[0] == 0);
      CHECK(head.other_norm[0] == 0);
      for (size_t p = 0; p < 3; ++p) CHECK(head.same[p] + head.other[p] == Approx(1).epsilon(1e-6));
    }
    std::vector<OtherTokenShift> all = r.detection.heads;
    all.push_back(r.detection.attention);
    for (const auto& heads : r.detection.detectors) all.insert(all.end(), heads.begin(), heads.end());
    all.insert(all.end(), r.detection.detector_totals.begin(), r.detection.detector_totals.end());
    for (const OtherTokenShift& shift : all) {
      const Shares& s = shift.shares;
      CHECK(s.mark + s.reader + s.other + s.both == Approx(1).epsilon(1e-12));
      CHECK(shift.mark * shift.mark == Approx(s.mark * shift.size * shift.size).epsilon(1e-9));
    }
  }
}

TEST_CASE("first layer: repeats with nothing before them are the lone token", "[first_layer]") {
  const Model model = Model::open(outputs + "tiny_llama1");
  Closure closure;
  const std::vector<Detector> detectors =
      find_detectors<double>(model, {}, inputs_for(20).texts, 0, 3);
  const Convergence run = follow_run<double>(model, {}, {"seven", {}, 7}, 50, detectors, closure);
  CHECK(closure.worst_of_bound <= 1);
  for (size_t n = 0; n < 50; ++n) {
    CHECK(run.other_attention[n] == 0);
    CHECK(run.attention_distance[n] <= 1e-12 * run.lone_norm);
  }
  CHECK(run.detectors[0].back().account.whole ==
        Approx(run.lone[0].account.whole).epsilon(1e-10));
}

TEST_CASE("first layer: the distance never passes the bound from the measured attention",
          "[first_layer]") {
  for (const char* name : tiny_models) {
    INFO(name);
    for (const Convergence& run : analyse(Model::open(outputs + name), inputs_for(5), "fp64").runs)
      for (size_t n = 0; n < run.bound.size(); ++n)
        // Where the window has left the prefix behind the bound is 0, and rounding remains.
        CHECK(run.attention_distance[n] <= run.bound[n] * (1 + 1e-9) + 1e-13 * run.lone_norm);
  }
}

TEST_CASE("first layer: chunks and kernels change no bit of the result", "[first_layer]") {
  const Model model = Model::open(outputs + "tiny_llama3");
  const FirstLayerInputs inputs = inputs_for(30);
  RunOptions other;
  other.kernel = "spec";
  other.chunk = 2;
  CHECK(to_json(analyse(model, inputs, "fp32")) == to_json(analyse(model, inputs, "fp32", other)));
}

TEST_CASE("first layer: a run that sees nothing else makes no claim", "[first_layer]") {
  FirstLayerInputs inputs = inputs_for(5);
  inputs.words = {{"seven", {7}, 7}};
  const FirstLayerResult r = analyse(Model::open(outputs + "tiny_llama1"), inputs, "fp32");
  for (const Claim& claim : r.claims) {
    CHECK(std::isfinite(claim.measured));
    CHECK(claim.statement.find("seven") == std::string::npos);
  }
}

TEST_CASE("first layer: too few tokens are refused", "[first_layer]") {
  CHECK_THROWS_AS(first_layer_inputs({5, 6, 6, 7, 5}, {}, {}), InputError);
}

TEST_CASE("cluster attack: what layer 0 makes of a lone token is what a run of it alone gives",
          "[first_layer]") {
  for (const char* name : {"tiny_llama2", "tiny_llama3", "tiny_mistral"}) {
    const Model model = Model::open(outputs + name);
    const Matrix<float> lone = lone_attention_outputs(model, {});
    REQUIRE(lone.rows == model.config().vocab_size);
    Forward<float> forward(model, {});
    for (int token : {0, 7, static_cast<int>(lone.rows) - 1}) {
      std::vector<float> run;
      Hooks<float> hooks;
      hooks.add({HookPoint::AttnOut, 0}, [&](const Activation<float>& a) {
        run.assign(a.row(0), a.row(0) + a.width);
      });
      std::vector<Sequence<float>> batch;
      batch.push_back(forward.start({token}));
      forward.run(batch, hooks);
      REQUIRE(run == std::vector<float>(lone.row(token), lone.row(token) + lone.cols));
    }
  }
}

TEST_CASE("cluster attack: planted clusters are found, the tightest first", "[first_layer]") {
  Matrix<float> outputs_of(60, 4);
  ClusterInputs inputs;
  inputs.sizes = {3};
  for (size_t t = 0; t < 60; ++t) {
    inputs.tokens.push_back(static_cast<int>(t));
    const size_t group = t / 3;  // threes, ever wider
    outputs_of.row(t)[0] = static_cast<float>(100 * group);
    outputs_of.row(t)[1] = static_cast<float>(t % 3) * 0.1f * static_cast<float>(group + 1);
  }
  const std::vector<Cluster> clusters = find_clusters(outputs_of, inputs);
  REQUIRE(clusters.size() == cluster_count);
  for (const Cluster& cluster : clusters) {
    CHECK(cluster.distance[0] == 0);
    for (int member : cluster.members) CHECK(member / 3 == cluster.members[0] / 3);
  }
  for (size_t i = 1; i < clusters.size(); ++i)
    CHECK(clusters[i - 1].distance.back() <= clusters[i].distance.back());
  CHECK(clusters[0].members[0] / 3 == 0);
}

TEST_CASE("cluster attack: without a sink or with too long runs it is refused", "[first_layer]") {
  const Model model = Model::open(outputs + "tiny_llama1");
  Progress quiet;
  ClusterInputs inputs;
  inputs.tokens = {3, 4, 5};
  CHECK_THROWS_AS(attack_with_clusters(model, {}, inputs, quiet), InputError);
  inputs.sinks.resize(1);
  inputs.length = 513;
  CHECK_THROWS_AS(attack_with_clusters(model, {}, inputs, quiet), InputError);
}
