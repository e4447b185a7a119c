// sink and report: what was found, as a table and as JSON.

#include <cstdio>
#include <filesystem>
#include <iostream>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/goldens.h"
#include "cli/inputs.h"
#include "sinkref/error.h"
#include "sinkref/output_file.h"
#include "sinkref/trace.h"

namespace sinkref::cli {

using nlohmann::ordered_json;

namespace {

ordered_json sink_json(const SinkLayer& sink) {
  ordered_json candidates = ordered_json::array();
  for (const NeuronContribution& c : sink.candidates)
    candidates.push_back({{"neuron", c.neuron}, {"gated", c.gated}, {"gate", c.gate}});
  return {{"layer", sink.layer},
          {"neurons", sink.neurons},
          {"norm_first", sink.norm_first},
          {"norm_typical", sink.norm_typical},
          {"norm_ablated", sink.norm_ablated},
          {"mlp_first", sink.mlp_first},
          {"mlp_typical", sink.mlp_typical},
          {"mlp_ablated", sink.mlp_ablated},
          {"by_paper_rule", sink.by_paper},
          {"candidates", candidates}};
}

ordered_json findings(const Options& options, const Model& model, const SinkInputs& inputs,
                      const SinkReport& found, bool with_curves) {
  ordered_json j;
  j["model"] = std::filesystem::path(options.model).filename().string();
  j["weights_sha256"] = model.weights_sha256(model.config().layers);
  j["arithmetic_version"] = arithmetic_version;
  j["lone_token"] = inputs.lone.at(0);
  j["paper_rule_threshold"] = found.norms.threshold;
  j["sink_layers"] = ordered_json::array();
  for (const SinkLayer& sink : found.sinks) j["sink_layers"].push_back(sink_json(sink));
  j["patch"] = neurons_text(found.patched);
  j["repeats"] = ordered_json::array();
  for (const RepeatCurve& curve : found.curves) {
    ordered_json repeat = {{"token", curve.token},
                           {"word", curve.word},
                           {"layer", curve.layer},
                           {"count", curve.count},
                           {"count_patched", curve.count_patched},
                           {"norm_last", curve.norms.back()},
                           {"norm_last_patched", curve.norms_patched.back()}};
    if (with_curves) {
      repeat["norms"] = curve.norms;
      repeat["norms_patched"] = curve.norms_patched;
    }
    j["repeats"].push_back(repeat);
  }
  j["next_token"] = ordered_json::array();
  for (const NextToken& next : found.next)
    j["next_token"].push_back({{"word", next.word},
                               {"token", next.token},
                               {"original", next.original},
                               {"original_probability", next.original_probability},
                               {"patched", next.patched},
                               {"patched_probability", next.patched_probability},
                               {"total_variation", next.total_variation}});
  if (with_curves)
    j["layers"] = {{"mlp_first", found.norms.mlp_first},
                   {"mlp_typical", found.norms.mlp_typical},
                   {"resid_first", found.norms.resid_first},
                   {"resid_typical", found.norms.resid_typical}};
  return j;
}

void print_sinks(const SinkReport& found) {
  if (found.sinks.empty()) {
    std::puts("No sink: no layer's MLP gives the first token a norm far above ordinary text's by a "
              "few neurons.");
    return;
  }
  std::puts("Sink layers (strongest first; norms of the residual stream after the layer)\n"
            "  layer  first token   typical   ablated  paper's rule  neurons");
  for (const SinkLayer& sink : found.sinks) {
    std::string neurons;
    for (size_t n : sink.neurons) neurons += (neurons.empty() ? "" : ", ") + std::to_string(n);
    std::printf("  %5zu  %11.1f  %8.1f  %8.1f  %-12s  %s\n", sink.layer, sink.norm_first,
                sink.norm_typical, sink.norm_ablated, sink.by_paper ? "yes" : "no",
                neurons.c_str());
  }
  std::puts("\nRepeats of one word (norm at the last one; needed: first past the geometric mean of "
            "typical\nand first token)\n"
            "  word        layer  needed      norm  needed, patched  norm, patched");
  const auto count = [](size_t n) { return n == 0 ? std::string("-") : std::to_string(n); };
  for (const RepeatCurve& c : found.curves)
    std::printf("  %-10s  %5zu  %6s  %8.1f  %15s  %13.1f\n", c.word.c_str(), c.layer,
                count(c.count).c_str(), c.norms.back(), count(c.count_patched).c_str(),
                c.norms_patched.back());
  std::printf("\nNext token after the run, original and with the patch %s\n"
              "  word        original          patched           total variation\n",
              neurons_text(found.patched).c_str());
  for (const NextToken& n : found.next)
    std::printf("  %-10s  %6d (p %.3f)   %6d (p %.3f)   %.3f\n", n.word.c_str(), n.original,
                n.original_probability, n.patched, n.patched_probability, n.total_variation);
}

SinkReport analyse(const Options& options, const Model& model, const SinkInputs& inputs) {
  return analyse_sinks(model, run_options(options), inputs, say);
}

}  // namespace

int sink(const Options& options) {
  const Model model = Model::open(options.model);
  const SinkInputs inputs = sink_inputs(options, model, options.repeats);
  const SinkReport found = analyse(options, model, inputs);
  if (options.json)
    std::cout << findings(options, model, inputs, found, false).dump(2) << '\n';
  else
    print_sinks(found);
  return 0;
}

int report(const Options& options) {
  namespace fs = std::filesystem;
  if (!options.out) throw InputError("--out is missing; expected the folder to write report.json to");
  const fs::path folder = *options.out;
  const fs::path file = folder / "report.json";
  std::error_code error;
  if (!options.force && fs::exists(file, error))
    throw InputError(file.string() + ": exists already; choose another folder or add --force");
  const Model model = Model::open(options.model);
  const SinkInputs inputs = sink_inputs(options, model, options.repeats);
  for (const std::string& golden : options.goldens) TraceFile::open(golden);
  fs::create_directories(folder, error);
  if (error) throw InputError(folder.string() + ": cannot be made: " + error.message());
  OutputFile output(file, options.force);  // claimed before the work begins
  const SinkReport found = analyse(options, model, inputs);
  ordered_json j = findings(options, model, inputs, found, true);
  std::vector<GoldenResult> goldens;
  j["goldens"] = ordered_json::array();
  bool agrees = true;
  for (const std::string& golden : options.goldens) {
    say("golden " + golden);
    goldens.push_back(compare_with_golden(model, options.kernel, golden));
    j["goldens"].push_back(golden_json(goldens.back()));
    agrees &= goldens.back().agrees;
  }
  output.append(j.dump(1) + "\n");
  output.commit();
  if (options.json) {
    std::cout << j.dump(2) << '\n';
  } else {
    print_sinks(found);
    print_goldens(goldens);
    std::printf("\nWritten: %s\n", file.c_str());
  }
  return agrees ? 0 : 1;
}

}  // namespace sinkref::cli
