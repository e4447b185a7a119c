// The analyses of the report and its figures.

#include "measure/repeats/repeats.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <limits>

#include "measure/attention/attention_masses.h"
#include "measure/definitions/sink_metric.h"
#include "measure/json.h"
#include "measure/paper/published.h"
#include "page/svg.h"
#include "sinkref/error.h"

using namespace sinkref;

namespace {

Model tiny(const std::string& name = "tiny_llama1") {
  return Model::open(std::string(SINKREF_SOURCE_DIR "/reference_outputs/") + name);
}

const SinkInputs::Word word = {"#77", {1, 40, 9}, 77};

}  // namespace

TEST_CASE("report: a continuation is judged by its first other token", "[report]") {
  const auto outcome = [](std::vector<int> generated, bool ended) {
    Continuation c;
    c.generated = std::move(generated);
    judge(c, 7, ended);
    return std::pair(c.outcome, c.kept);
  };
  CHECK(outcome({7, 7, 7}, false) == std::pair(Outcome::repeats, size_t{3}));
  CHECK(outcome({7, 7}, true) == std::pair(Outcome::stops, size_t{2}));
  CHECK(outcome({}, true) == std::pair(Outcome::stops, size_t{0}));
  CHECK(outcome({7, 8, 7}, false) == std::pair(Outcome::departs, size_t{1}));
  CHECK(outcome({8}, true) == std::pair(Outcome::departs, size_t{0}));
}

TEST_CASE("report: the repeat task is tried at 10, 30, 100, … and at the end", "[report]") {
  CHECK(continuation_points(1) == std::vector<size_t>{1});
  CHECK(continuation_points(10) == std::vector<size_t>{10});
  CHECK(continuation_points(300) == std::vector<size_t>{10, 30, 100, 300});
  CHECK(continuation_points(1000) == std::vector<size_t>{10, 30, 100, 300, 1000});
}

TEST_CASE("report: one run holds every shorter run, to the bit", "[report]") {
  const Model model = tiny();
  const RepeatRun whole = run_repeats(model, {}, word, 40, {"BOS", {}, nullptr, true});
  for (size_t n : {1, 7, 30}) {
    const RepeatRun part = run_repeats(model, {}, word, n, {"BOS", {}, nullptr, false});
    for (size_t layer = 0; layer < model.config().layers; ++layer) {
      REQUIRE(part.norms[layer].size() == n);
      for (size_t i = 0; i < n; ++i) CHECK(part.norms[layer][i] == whole.norms[layer][i]);
    }
  }
}

TEST_CASE("report: a continuation from the cache is the one that a run of its own gives",
          "[report]") {
  const Model model = tiny();
  const std::vector<Neurons> neurons = {{1, {17, 5}}};
  for (const std::vector<Neurons>& patch : {std::vector<Neurons>(), neurons}) {
    const RepeatRun run = run_repeats(model, {}, word, 100, {"BOS", patch, nullptr, true});
    REQUIRE(run.continuations.size() == 3);
    for (const Continuation& c : run.continuations) {
      std::vector<int> tokens = word.prefix;
      tokens.insert(tokens.end(), c.repeats, word.token);
      Forward<float> forward(model, {});
      Hooks<float> hooks;
      add_patch(patch, hooks);
      CHECK(c.generated == generate(forward, forward.start(tokens), continuation_tokens, hooks));
    }
  }
}

TEST_CASE("report: words whose continuations run together are what each is alone", "[report]") {
  const Model model = tiny();
  std::vector<SinkInputs::Word> words = {word, {"#12", {1, 40, 9}, 12}, {"#200", {1, 40, 9}, 200}};
  const std::vector<Neurons> neurons = {{1, {17, 5}}};
  for (const std::vector<Neurons>& patch : {std::vector<Neurons>(), neurons}) {
    const RunPlan plan{"BOS", patch, nullptr, true};
    Progress nobody;
    const std::vector<RepeatRun> runs = run_words(model, {}, words, 50, plan, nobody);
    REQUIRE(runs.size() == words.size());
    for (size_t i = 0; i < words.size(); ++i) {
      const RepeatRun alone = run_repeats(model, {}, words[i], 50, plan);
      CHECK(runs[i].word == words[i].text);
      CHECK(runs[i].norms == alone.norms);
      CHECK(runs[i].next == alone.next);
      REQUIRE(runs[i].continuations.size() == alone.continuations.size());
      for (size_t c = 0; c < alone.continuations.size(); ++c) {
        CHECK(runs[i].continuations[c].generated == alone.continuations[c].generated);
        CHECK(runs[i].continuations[c].probability == alone.continuations[c].probability);
        CHECK(runs[i].continuations[c].outcome == alone.continuations[c].outcome);
      }
    }
  }
}

TEST_CASE("report: a batch goes on without its sequences that have ended", "[report]") {
  const Model model = tiny();
  Forward<float> forward(model, {});
  Hooks<float> none;
  std::vector<Sequence<float>> alone, batch;
  alone.push_back(forward.start({1, 5, 9}));
  batch.push_back(forward.start({1, 7}));
  batch.push_back(forward.start({1, 5, 9}));
  forward.run(alone, none);
  forward.run(batch, none);
  alone[0].pending = {44};
  batch[1].pending = {44};
  const Matrix<float> expected = forward.run(alone, none, false), both = forward.run(batch, none, false);
  CHECK(std::equal(expected.row(0), expected.row(0) + expected.cols, both.row(1)));
  CHECK(batch[0].cache.length == 2);
  REQUIRE_THROWS_AS(forward.run(batch, none, false), InputError);  // nobody has anything pending
}

TEST_CASE("report: a continuation ends where the context is full", "[report]") {
  const Model model = tiny();
  const size_t limit = model.config().max_positions;
  const RepeatRun run =
      run_repeats(model, {}, word, limit - word.prefix.size(), {"BOS", {}, nullptr, true});
  CHECK(run.continuations.back().generated.size() <= 1);
}

TEST_CASE("report: attention on position 0 and on the rest add up to one", "[report]") {
  for (const char* name : {"tiny_llama1", "tiny_llama3", "tiny_mistral"}) {
    const Model model = tiny(name);
    const std::vector<int> text = {1, 5, 9, 44, 31, 9, 9, 21, 60, 12, 13, 14};
    AttentionMasses masses = attention_masses({0, 1}, 1, model.config().heads, text.size());
    Hooks<float> hooks;
    masses.attach(hooks);
    run(model, {}, {text}, hooks);
    for (const LayerAttention& layer : masses.layers) {
      CHECK(layer.on_body[0] == 0);
      for (size_t q = 0; q < text.size(); ++q) {
        // Each weight is rounded once to fp32, and so was the reciprocal of their sum.
        const double bound = double(q + 2) * std::numeric_limits<float>::epsilon();
        CHECK(std::fabs(layer.on_first[q] + layer.on_body[q] - 1) <= bound);
        REQUIRE(layer.scores[q].size() == q + 1);
      }
    }
  }
}

TEST_CASE("report: the layers looked at are each sink, the next, the middle and the last",
          "[report]") {
  CHECK(attention_layers({11, 2}, 30) == std::vector<size_t>{2, 3, 11, 12, 15, 29});
  CHECK(attention_layers({}, 30) == std::vector<size_t>{0, 1, 15, 29});
  CHECK(attention_layers({}, 1) == std::vector<size_t>{0});
  CHECK(attention_layers({1}, 2) == std::vector<size_t>{1});
}

TEST_CASE("report: the sink metric counts heads by their mean attention to position 0",
          "[report]") {
  const Model model = tiny();
  const SinkMetric metric = sink_metric(model, {}, "text", {{1, 5, 9, 44}, {1, 7, 8, 9, 10}});
  CHECK(metric.length == 4);  // the shortest sample
  // With one token all attention is on it: every head is above any threshold.
  const SinkMetric alone = sink_metric(model, {}, "text", {{1}});
  CHECK(alone.percent == 100);
  for (const auto& heads : alone.attention)
    for (double a : heads) CHECK(a == 1);
  // Two samples' mean is the mean of each alone.
  const SinkMetric a = sink_metric(model, {}, "text", {{1, 5, 9, 44}});
  const SinkMetric b = sink_metric(model, {}, "text", {{1, 7, 8, 9}});
  for (size_t layer = 0; layer < a.attention.size(); ++layer)
    for (size_t head = 0; head < a.attention[layer].size(); ++head)
      CHECK(metric.attention[layer][head] ==
            a.attention[layer][head] / 2 + b.attention[layer][head] / 2);
}

TEST_CASE("report: repeats needed are counted from one, and none is zero", "[report]") {
  SinkLayer sink;
  sink.layer = 0;
  sink.norm_typical = 1;
  sink.norm_first = 100;
  CHECK(sink.fires_above() == 10);
  RepeatRun run;
  run.norms = {{1, 10, 11, 95, 12}};
  const RepeatsNeeded needed = repeats_needed(run, {sink})[0];
  CHECK(needed.count == 3);  // above, not at
  CHECK(needed.reached == 4);
  CHECK(needed.norm_last == 12);
  CHECK(needed.norm_largest == 95);
  run.norms = {{1, 10}};
  CHECK(repeats_needed(run, {sink})[0].count == 0);
  CHECK(repeats_needed(run, {sink})[0].reached == 0);
}

TEST_CASE("report: one token as the text finds no sink, for it has no typical norm", "[report]") {
  const Model model = tiny();
  const SinkInputs inputs{{1}, {1}, {}, 0};
  CHECK(find_sinks(model, {}, inputs, measure_norms(model, {}, inputs)).empty());
}

TEST_CASE("report: an unknown row of the paper is answered with the known ones", "[report]") {
  CHECK(published_row("llama-2-7b").neurons == std::vector<size_t>{7890, 10411});
  CHECK_THROWS_WITH(published_row("gpt-2"), Catch::Contains("mistral-7b-instruct"));
}

TEST_CASE("report: numbers in JSON have nine digits, and what is no number is null", "[report]") {
  CHECK(number(1.0 / 3).dump() == "0.333333333");
  CHECK(number(22712.30078125).dump() == "22712.3008");
  CHECK(number(std::numeric_limits<double>::quiet_NaN()).is_null());
  CHECK(number(-std::numeric_limits<double>::infinity()).is_null());
  CHECK(number(0).dump() == "0.0");
}

TEST_CASE("report: a map of scores shows a long run to its end", "[report]") {
  CHECK(chosen_positions(3) == std::vector<size_t>{0, 1, 2});
  CHECK(chosen_positions(map_positions).size() == map_positions);
  for (size_t length : {49, 50, 64, 300, 1007, 5000}) {
    const std::vector<size_t> chosen = chosen_positions(length);
    CHECK(chosen.size() <= map_positions);
    CHECK(chosen.size() > map_positions / 2);
    CHECK(chosen.front() == 0);
    CHECK(chosen.back() == length - 1);
    for (size_t i = 1; i < chosen.size(); ++i) CHECK(chosen[i] > chosen[i - 1]);
  }
  // The scores at them are those of the run.
  const Model model = tiny();
  std::vector<int> tokens(120, 77);
  tokens[0] = 1;
  AttentionMasses masses = attention_masses({1}, 1, model.config().heads, tokens.size());
  Hooks<float> hooks;
  masses.attach(hooks);
  std::vector<std::vector<double>> all(tokens.size(), std::vector<double>(tokens.size()));
  hooks.add({HookPoint::AttnScores, 1}, [&](const Activation<float>& a) {
    for (size_t r = 0; r < a.rows.size(); ++r)
      for (size_t k = 0; k <= a.rows[r].position; ++k)
        all[a.rows[r].position][k] += double(a.row(r)[k]) / double(model.config().heads);
  });
  run(model, {}, {tokens}, hooks);
  const std::vector<size_t>& at = masses.score_positions;
  for (size_t i = 0; i < at.size(); ++i)
    for (size_t j = 0; j <= i; ++j) CHECK(masses.layers[0].scores[i][j] == all[at[i]][at[j]]);
}

TEST_CASE("figures: the ends of a logarithmic axis are named", "[report]") {
  for (double high : {7.0, 95.0, 1007.0, 4100.0, 2e7}) {
    const svg::Scale scale = svg::scale_for({1, high}, true, 0, 1);
    CHECK(scale.ticks.front() == scale.low);
    CHECK(scale.ticks.back() == scale.high);
    LineChart chart{"t", {"x", true}, {"y", true}, {}, {}};
    chart.series = {{"one", {1, high}, {1, high}, 0, Series::Mark::line}};
    CHECK(plot_svg(chart).find(">" + svg::tick_text(scale.high) + "</text>") != std::string::npos);
  }
}

TEST_CASE("figures: heat maps of one figure share their shades, and signed ones have a zero", "[report]") {
  Figure figure{"id", "t", "c", "", {}};
  HeatMap small{"a", "x", "y", "v", {{1}, {1, 2}}}, large{"b", "x", "y", "v", {{-8}, {1, 4}}};
  small.is_signed = large.is_signed = true;
  figure.plots = {small, large};
  share_scale(figure);
  for (const Plot& plot : figure.plots) {
    CHECK(std::get<HeatMap>(plot).range == std::pair<double, double>(-8, 8));
    const std::string svg = plot_svg(plot);
    for (const char* label : {">8</text>", ">-8</text>", ">0</text>"}) CHECK(svg.find(label) != std::string::npos);
    CHECK(svg.find("class=\"h0\"") == std::string::npos);  // shades that diverge
  }
}

TEST_CASE("figures: curves differ by more than their colour", "[report]") {
  LineChart chart{"t", {"x", false}, {"y", false}, {}, {}};
  const std::vector<double> x = {0, 1, 2, 3};
  for (size_t i = 0; i < 5; ++i) chart.series.push_back({"w" + std::to_string(i), x, x, i, Series::Mark::line});
  chart.series.push_back({"dashed", x, x, 0, Series::Mark::dashed});
  const std::string svg = plot_svg(chart);
  std::vector<std::string> shapes;
  for (size_t i = 0; i < 5; ++i) {
    const std::string shape = svg::marker(i, 0, 0);
    CHECK(std::find(shapes.begin(), shapes.end(), shape) == shapes.end());
    shapes.push_back(shape);
    CHECK(svg.find("class=\"dot c" + std::to_string(i) + "\"") != std::string::npos);
  }
  CHECK(svg.find("class=\"hollow c0\"") != std::string::npos);
}

TEST_CASE("figures: a scale holds its values, has round ends, and rises", "[report]") {
  for (bool logarithmic : {false, true})
    for (const std::vector<double>& values :
         {std::vector<double>{3, 8, 950}, {0.0007, 0.3}, {5}, {5, 5}, {1e-6, 1e6}}) {
      const svg::Scale scale = svg::scale_for(values, logarithmic, 10, 110);
      INFO(logarithmic << " " << values.front() << " to " << values.back());
      CHECK(scale.low < scale.high);
      CHECK(scale.low <= values.front() * 1.0001);
      CHECK(scale.high >= values.back() * 0.9999);
      CHECK(scale.ticks.size() >= 2);
      CHECK(scale.ticks.size() <= 10);
      for (size_t i = 1; i < scale.ticks.size(); ++i) CHECK(scale.ticks[i] > scale.ticks[i - 1]);
      CHECK(scale(scale.low) == 10);
      CHECK(scale(scale.high) == 110);
    }
  CHECK_FALSE(svg::scale_for({1, 10}, true, 0, 1).shows(0));
  CHECK_FALSE(svg::scale_for({1, 10}, false, 0, 1).shows(NAN));
}

TEST_CASE("figures: text is escaped, and values that cannot be shown are left out", "[report]") {
  LineChart chart{"a < b & \"c\"", {"x", true}, {"y", true}, {}, {}};
  chart.series = {{"<one>", {0, 1, 2, 3}, {1, 0, NAN, INFINITY}, 0, Series::Mark::line}};
  const std::string svg = plot_svg(chart);
  CHECK(svg.find("a &lt; b &amp; &quot;c&quot;") != std::string::npos);
  CHECK(svg.find("<one>") == std::string::npos);
  for (const char* wrong : {"nan", "inf", "NaN"}) CHECK(svg.find(wrong) == std::string::npos);
  CHECK(figure_csv({"id", "t", "c", "", {chart}}).find("\"a < b & \"\"c\"\"\"") != std::string::npos);
}
