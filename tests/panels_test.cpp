// The table of panels: every row is measured, stands in report.json and on the page in its order, or
// says what it lacks. And the sinks of models in which they were planted.

#include "measure/panels.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "certify/certify.h"
#include "certify/cost.h"
#include "measure/certified/panel.h"
#include "planted_model.h"

using namespace sinkref;

namespace {

using nlohmann::ordered_json;

const std::string outputs = SINKREF_SOURCE_DIR "/reference_outputs/";
const std::vector<std::pair<size_t, double>> two_neurons = {{3, 0.55}, {9, 0.45}};

Experiment experiment_of(const Model& model) {
  return {model, "model", {}, stimuli_for(model, planted_stimuli()), "fp32", {}, {}};
}

/// Gives every claim one verdict, at one cost.
Prover prover_of(Proof verdict, double processor_seconds) {
  return {[=](const CertifyRequest&) { return CertifyCost{processor_seconds, 1e6}; },
          [=](const CertifyRequest& request) {
            Certificate certificate;
            certificate.bits = 100;
            std::istringstream lines(request.claims);
            for (std::string line; std::getline(lines, line);) certificate.claims.push_back({line, verdict, "[1]", "[2]"});
            return certificate;
          }};
}

/// report.json and the page of an experiment.
struct Told {
  ordered_json j;
  Page page;
};
Told tell(const Experiment& experiment, const Results& results, const std::vector<Panel>& panels) {
  Told told{panels_json(experiment, results, panels, true), {}};
  add_panels({experiment, results}, panels, told.page);
  return told;
}

/// An empty list is a result where there always is one: no sink was found.
bool has_result(const Panel& panel, const ordered_json& j) {
  if (!j.contains(panel.key)) return false;
  return panel.needs == std::string() || !(j[panel.key].is_array() && j[panel.key].empty());
}

/// What is wrong with what is told of `panels`; nothing if all is right.
std::vector<std::string> complaints(const std::vector<Panel>& panels, const Told& told) {
  std::vector<std::string> all;
  std::vector<std::string> keys, sections, expected_keys, expected_sections;
  bool details = false;  // behind the summaries
  for (const auto& [key, value] : told.j.items()) {
    if (details) keys.push_back(key);
    details |= key == "layers";
  }
  for (const Section& section : told.page.sections) sections.push_back(section.id);
  for (const Panel& panel : panels) {
    const std::string key = panel.key;
    if (std::find(keys.begin(), keys.end(), key) != keys.end()) expected_keys.push_back(key);
    if (!has_result(panel, told.j)) {
      if (panel.needs == std::string()) all.push_back(key + ": no result, and no rule for it");
      continue;
    }
    if (std::find(sections.begin(), sections.end(), panel.section) == sections.end())
      all.push_back(key + ": its section is not on the page");
    if (expected_sections.empty() || expected_sections.back() != panel.section)
      expected_sections.push_back(panel.section);
  }
  if (keys != expected_keys) all.push_back("report.json is not in the order of the panels");
  if (sections != expected_sections) all.push_back("the page is not in the order of the panels");
  for (const Finding& finding : told.page.findings)
    if (std::find(sections.begin(), sections.end(), finding.section) == sections.end())
      all.push_back("a finding points to " + finding.section + ", which is no section");
  return all;
}

Panel& row(std::vector<Panel>& panels, const std::string& key) {
  return *std::find_if(panels.begin(), panels.end(), [&](const Panel& p) { return p.key == key; });
}

}  // namespace

TEST_CASE("panels: every row is in report.json and on the page, or says what it lacks", "[panels]") {
  std::set<std::string> seen, missed;
  const auto check = [&](const Experiment& experiment) {
    const Results results = measure(experiment, panels());
    const Told told = tell(experiment, results, panels());
    for (const std::string& complaint : complaints(panels(), told)) FAIL_CHECK(complaint);
    for (const Panel& panel : panels()) (has_result(panel, told.j) ? seen : missed).insert(panel.key);
    const std::string html = page_html(told.page);
    for (const Section& section : told.page.sections)
      CHECK(html.find("<section id=\"" + section.id + "\">\n<h2>" + std::to_string(section.number) + ". ") !=
            std::string::npos);
    for (size_t i = 0; i < told.page.sections.size(); ++i) CHECK(told.page.sections[i].number == i + 1);
  };
  const PlantedModel planted(two_neurons);
  const Model with_sink = planted.open();
  Experiment first = experiment_of(with_sink);
  first.paper = "llama-2-7b";
  first.prover = prover_of(Proof::proved, 1);
  check(first);
  const PlantedModel control({});
  const Model without_sink = control.open();
  check(experiment_of(without_sink));
  const Model tiny = Model::open(outputs + "tiny_llama1");
  Experiment second = experiment_of(tiny);
  second.goldens = {outputs + "tiny_llama1/golden_prompt.safetensors"};
  check(second);
  // The rules for what is missing are not a way to be missing always.
  for (const Panel& panel : panels()) {
    INFO(panel.key);
    CHECK(seen.count(panel.key) == 1);
    CHECK((missed.count(panel.key) == 1) == (panel.needs != std::string()));
  }
}

TEST_CASE("panels: a part that is missing or out of place is seen", "[panels]") {
  const PlantedModel planted(two_neurons);
  const Model model = planted.open();
  const Experiment experiment = experiment_of(model);
  const Results results = measure(experiment, panels());
  const auto faults = [&](const auto& fault) {
    std::vector<Panel> faulty = panels();
    fault(faulty);
    // Told by the faulty rows, judged by the right ones.
    return complaints(panels(), tell(experiment, results, faulty));
  };
  CHECK(faults([](std::vector<Panel>&) {}).empty());
  CHECK_FALSE(faults([](auto& rows) { row(rows, "attention").json = nullptr; }).empty());
  CHECK_FALSE(faults([](auto& rows) { row(rows, "attention").page = nullptr; }).empty());
  CHECK_FALSE(faults([](auto& rows) { rows.pop_back(), rows.erase(rows.begin()); }).empty());
  CHECK_FALSE(faults([](auto& rows) { std::swap(row(rows, "attention"), row(rows, "softmax_what_if")); }).empty());
}

TEST_CASE("panels: keys are told apart, and rows of one section stand together", "[panels]") {
  std::set<std::string> keys, closed;
  std::string section;
  for (const Panel& panel : panels()) {
    CHECK(keys.insert(panel.key).second);
    if (panel.section != section) CHECK(closed.insert(panel.section).second);
    section = panel.section;
    CHECK(panel.json != nullptr);
    CHECK(panel.page != nullptr);
  }
  CHECK_THROWS_AS(panels_of({"sink_layers", "no_such_panel"}), std::logic_error);
  CHECK_THROWS_AS(Page().section("no-such-section"), std::out_of_range);
}

TEST_CASE("panels: runs are made for those that read them, and none to no purpose", "[panels]") {
  const PlantedModel planted(two_neurons), without({});
  const Model with_sink = planted.open(), control = without.open();
  const auto runs = [](const Model& model, const char* key) {
    return measure(experiment_of(model), panels_of({key})).runs;
  };
  CHECK(runs(with_sink, "sink_layers").empty());
  CHECK_FALSE(runs(with_sink, "norms_by_repeats").empty());
  CHECK(runs(with_sink, "norms_by_repeats")[0].continuations.empty());
  CHECK(runs(control, "norms_by_repeats").empty());
  CHECK_FALSE(runs(control, "repeat_task")[0].continuations.empty());
}

TEST_CASE("panels: verdicts on the decisive comparisons are told, and what is out of reach", "[panels]") {
  const PlantedModel planted(two_neurons);
  const Model model = planted.open();
  Experiment experiment = experiment_of(model);
  const auto told_with = [&](const Prover& prover) {
    experiment.prover = prover;
    const Results results = measure(experiment, panels_of({"certified"}));
    return tell(experiment, results, panels_of({"certified"}));
  };
  const auto answer = [](const Told& told) { return told.page.findings.at(0).answer; };
  const Told proved = told_with(prover_of(Proof::proved, most_proof_seconds));
  size_t claims = 0;
  for (const ordered_json& run : proved.j["certified"]) {
    CHECK(run["left_out"].is_null());
    claims += run["claims"].size();
  }
  CHECK(claims == 4);  // two of the sink and two of its neurons; no run of this length sets it off
  CHECK(answer(proved).starts_with(std::to_string(claims) + " of " + std::to_string(claims) + " decisive"));
  const Told disproved = told_with(prover_of(Proof::disproved, 1));
  CHECK(answer(disproved).starts_with("0 of " + std::to_string(claims)));
  CHECK(answer(disproved).find(std::to_string(claims) + " disproved") != std::string::npos);
  const Told far = told_with(prover_of(Proof::proved, 1.1 * most_proof_seconds));
  CHECK(answer(far).find("Left out: " + std::to_string(far.j["certified"].size())) != std::string::npos);
  for (const ordered_json& run : far.j["certified"]) {
    CHECK(run["claims"].empty());
    CHECK(run["left_out"].get<std::string>().find("660 s of processor time") != std::string::npos);
  }
  CHECK_FALSE(told_with({}).j.contains("certified"));
}

TEST_CASE("sinks: the planted layer and neurons are found, and nothing in a control", "[panels]") {
  const auto sinks_of = [](const PlantedModel& planted) {
    const Model model = planted.open();
    const Experiment experiment = experiment_of(model);
    const LayerNorms norms = measure_norms(model, {}, experiment.stimuli.sink);
    // The decoy adds many times the usual in layer 0, yet does not raise the norm: it is no sink.
    CHECK(norms.mlp_first[0] > massive_ratio * norms.mlp_typical[0]);
    return find_sinks(model, {}, experiment.stimuli.sink, norms);
  };
  const auto check = [&](const std::vector<std::pair<size_t, double>>& planted,
                         const std::vector<size_t>& neurons) {
    const std::vector<SinkLayer> sinks = sinks_of(PlantedModel(planted));
    REQUIRE(sinks.size() == 1);
    CHECK(sinks[0].layer == 1);
    CHECK(sinks[0].neurons == neurons);
    CHECK(sinks[0].by_gate.neurons == neurons);
    CHECK(sinks[0].candidates[0].neuron == planted[0].first);
    double left = PlantedModel::sink_norm, found = 0;
    for (const auto& [neuron, share] : planted)
      if (std::find(neurons.begin(), neurons.end(), neuron) != neurons.end())
        found += share * PlantedModel::sink_norm;
    left -= found;
    // The planted numbers leave out what other neurons add, which is below 1.
    CHECK(std::fabs(sinks[0].norm_first - PlantedModel::sink_norm) < 0.02 * PlantedModel::sink_norm);
    CHECK(std::fabs(sinks[0].norm_ablated - left) < 2);
    CHECK(sinks[0].norm_typical < 10);
  };
  check({{3, 0.55}, {9, 0.45}}, {3, 9});
  check({{7, 1.0}}, {7});
  check({{4, 0.95}, {1, 0.05}}, {4});  // the fewest that collapse it
  CHECK(sinks_of(PlantedModel({})).empty());
}
