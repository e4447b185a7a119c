// verify: another implementation's numbers held against the truth.

#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <iostream>

#include "base/json_file.h"
#include "cli/commands.h"
#include "cli/goldens.h"
#include "cli/inputs.h"
#include "cli/verify_output.h"
#include "sinkref/error.h"
#include "base/output_file.h"
#include "sinkref/verify.h"

namespace sinkref::cli {

using nlohmann::ordered_json;

namespace {

/// This machine's own run against stored truths.
int verify_goldens(const Options& options) {
  const Model model = open_model(options);
  std::vector<GoldenResult> goldens;
  ordered_json all = ordered_json::array();
  bool agrees = true;
  for (const std::string& file : options.goldens) {
    goldens.push_back(compare_with_golden(model, options.kernel, file));
    all.push_back(golden_json(goldens.back()));
    agrees &= goldens.back().agrees;
  }
  if (options.json)
    std::cout << ordered_json{{"verdict", agrees ? "agree" : "differ"}, {"first", nullptr},
                              {"diagnosis", ordered_json::array()}, {"goldens", all}}
                     .dump(2)
              << '\n';
  else
    print_goldens(goldens);
  return agrees ? 0 : 1;
}

std::optional<NumberType> number_type(const std::string& name) {
  if (name == "auto") return std::nullopt;
  return name == "fp16" ? NumberType::fp16 : name == "bf16" ? NumberType::bf16 : NumberType::fp32;
}

/// Hugging Face's noise by tensor, from a golden of the same tokens.
std::map<std::string, double> hf_noise(const Options& options, const TraceFile& candidate) {
  std::map<std::string, double> noise;
  for (const std::string& name : options.goldens) {
    const TraceFile golden = TraceFile::open(name);
    if (!candidate.has("tokens") || golden.values("tokens") != candidate.values("tokens"))
      throw InputError(name + ": is of other tokens than the candidate; leave it out or give the "
                       "golden of this prompt");
    const auto floor = golden.metadata().find("floor");
    if (floor == golden.metadata().end()) throw InputError(name + ": holds no noise floor");
    const nlohmann::json parsed = parse_json(floor->second, name);
    for (const auto& [tensor, entry] : parsed.items())
      noise[tensor] = entry.at("pool_row_rms").get<double>();
  }
  return noise;
}

/// Our fp32 run with the candidate's tensors, as a trace beside it that is gone afterwards.
VerifyResult exact_against_model(const Options& options, const Model& model,
                                 const TraceFile& candidate, const VerifyOptions& verify) {
  namespace fs = std::filesystem;
  if (!candidate.has("tokens"))
    throw InputError(candidate.path().string() + ": has no tensor \"tokens\" [b,p]");
  const std::vector<double> ids = candidate.values("tokens");
  const size_t length = candidate.shape("tokens").at(1);
  std::vector<std::vector<int>> tokens;
  for (size_t begin = 0; begin < ids.size(); begin += length) {
    tokens.emplace_back();
    for (size_t i = begin; i < begin + length && ids[i] >= 0; ++i)
      tokens.back().push_back(static_cast<int>(ids[i]));
  }
  std::vector<Hook> chosen;
  for (Hook hook : all_hooks(model.config().layers))
    if (candidate.has(hook_name(hook))) chosen.push_back(hook);
  const fs::path temporary =
      fs::temp_directory_path() / ("sinkref-verify-" + std::to_string(::getpid()) + ".safetensors");
  struct Gone {
    fs::path path;
    ~Gone() {
      std::error_code ignored;
      fs::remove(path, ignored);
    }
  } gone{temporary};
  RunOptions run = run_options(options);
  run.logits = candidate.has("logits") ? LogitRows::all : LogitRows::none;
  Forward<float> forward(model, run);
  std::vector<Sequence<float>> batch;
  for (const std::vector<int>& sequence : tokens) batch.push_back(forward.start(sequence));
  Hooks<float> hooks;
  add_patch(verify.patch, hooks);
  add_ablation(verify.ablation, hooks);
  TraceWriter<float> writer(
      temporary, true, model.config(), chosen, tokens,
      trace_metadata(model, model.config().layers, "fp32", options.softmax));
  writer.attach(hooks);
  forward.run(batch, hooks);
  writer.commit();
  return verify_traces(TraceFile::open(temporary), candidate, {}, true);
}

VerifyOptions verify_options(const Options& options, const Model& model) {
  VerifyOptions verify;
  verify.kernel = options.kernel;
  verify.softmax = options.softmax;
  verify.patch = chosen_patch(options, model);
  verify.ablation = chosen_ablation(options, model);
  verify.activations = number_type(options.candidate_dtype);
  verify.cache = number_type(options.candidate_cache);
  verify.require = options.require;
  if (options.prompt || options.prompt_file || options.tokens || options.tokens_file)
    verify.tokens = read_one_sequence(options, model.checkpoint());
  try {
    const std::unique_ptr<Tokenizer> tokenizer = open_tokenizer(model.checkpoint());
    if (tokenizer->adds_bos()) verify.bos = model.config().bos_id;
  } catch (const InputError&) {  // a model without a tokenizer is compared by ids alone
  }
  if (options.budget) verify.budget = Budget::read(*options.budget, model.config().layers);
  if (isatty(2)) verify.say = [](const std::string& text) { std::cerr << '\r' << text << "  "; };
  return verify;
}

std::string base_name(const std::string& path) {
  return std::filesystem::path(path).filename().string();
}

VerifyReport verify_one_candidate(const Options& options) {
  const Model model = open_model(options);
  const TraceFile candidate = TraceFile::open(*options.candidate);
  const VerifyOptions verify = verify_options(options, model);
  VerifyReport report;
  report.reference = base_name(options.model);
  report.candidate = base_name(*options.candidate);
  report.exact = options.exact;
  report.hf_noise = hf_noise(options, candidate);
  report.result = options.exact ? exact_against_model(options, model, candidate, verify)
                                : verify_candidate(model, candidate, verify);
  if (verify.say) std::cerr << '\n';
  report.provenance = {{"program", "sinkref " SINKREF_VERSION},
                       {"arithmetic_version", std::to_string(arithmetic_version)},
                       {"weights_sha256", model.weights_sha256(model.config().layers)},
                       {"budget_factor", std::to_string(budget_factor)},
                       {"candidate_dtype", number_type_name(report.result.arithmetic.activations)},
                       {"candidate_cache", number_type_name(report.result.arithmetic.cache)}};
  return report;
}

VerifyReport verify_two_traces(const Options& options) {
  const TraceFile reference = TraceFile::open(options.traces[0]);
  const TraceFile candidate = TraceFile::open(options.traces[1]);
  Budget budget;
  if (options.budget) budget = Budget::read(*options.budget, 100000);
  VerifyReport report;
  report.reference = base_name(options.traces[0]);
  report.candidate = base_name(options.traces[1]);
  report.exact = options.exact || budget.empty();
  report.result = verify_traces(reference, candidate, budget, options.exact);
  if (!options.exact && budget.empty())
    report.result.notes.push_back("bits were compared: two traces alone have no rounding budget; "
                                  "give --budget, or --model and --candidate");
  report.provenance = {{"program", "sinkref " SINKREF_VERSION}};
  return report;
}

void check_usage(const Options& options) {
  if (options.traces.size() == 1)
    throw InputError("verify: one trace alone; give two, or --model M --candidate " +
                     quoted(options.traces[0]));
  if (options.traces.size() > 2)
    throw InputError("verify: " + std::to_string(options.traces.size()) + " traces, expected two");
  if (!options.traces.empty() && (options.candidate || !options.goldens.empty()))
    throw InputError("verify: two traces, --candidate and --golden are three different comparisons; "
                     "choose one");
  if (options.traces.empty() && !options.candidate && options.goldens.empty())
    throw InputError("verify: nothing to compare; expected --candidate THEIRS.safetensors, two "
                     "traces, or --golden FILE");
  if (options.exact && options.budget)
    throw InputError("verify: --exact compares bits and takes no --budget");
}

}  // namespace

int verify(const Options& options) {
  if (options.self) return verify_self(options);
  if (options.perturb) throw InputError("verify: --perturb belongs to --self; add it");
  check_usage(options);
  if (!options.goldens.empty() && !options.candidate) return verify_goldens(options);
  const VerifyReport report =
      options.candidate ? verify_one_candidate(options) : verify_two_traces(options);
  if (options.write_budget)
    write_text_file(*options.write_budget, report.result.budget.text(report.provenance),
                    options.force);
  if (options.html) write_text_file(*options.html, verify_html(report), options.force);
  if (options.json)
    std::cout << verify_json(report).dump(2, ' ', false, ordered_json::error_handler_t::replace)
              << '\n';
  else
    print_verify(report);
  return report.result.agrees ? 0 : 1;
}

}  // namespace sinkref::cli
