// verify: another implementation's numbers held against the truth.

#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <iostream>
#include <set>

#include "certify/certify.h"
#include "cli/commands.h"
#include "cli/inputs.h"
#include "cli/verify_options.h"
#include "cli/verify_output.h"
#include "measure/goldens/panel.h"
#include "sinkref/error.h"
#include "base/output_file.h"
#include "base/progress.h"
#include "sinkref/verify.h"
#include "verify/candidate.h"
#include "verify/golden_file.h"

namespace sinkref::cli {

using nlohmann::ordered_json;

namespace {

constexpr size_t most_layers = 1000;  // of the model of two traces, which is not there to be asked

/// This machine's own run against stored truths.
int verify_goldens(const VerifyCommand& options) {
  const Model model = open_model(options);
  std::vector<GoldenResult> goldens;
  ordered_json all = ordered_json::array();
  bool agrees = true;
  Progress progress = Progress::to_stderr();
  double work = 0;
  for (const std::string& file : options.goldens) work += golden_work(model, file);
  progress.plan(work);
  for (const std::string& file : options.goldens) {
    progress.step("golden " + file, golden_work(model, file));
    goldens.push_back(compare_with_golden(model, options.kernel, file));
    all.push_back(golden_json(goldens.back()));
    agrees &= goldens.back().agrees;
  }
  progress.finish();
  if (options.json)
    std::cout << json_text({{"verdict", agrees ? "agree" : "differ"}, {"first", nullptr},
                            {"diagnosis", ordered_json::array()}, {"goldens", all}})
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
std::map<std::string, double> hf_noise(const VerifyCommand& options, const TraceFile& candidate) {
  std::map<std::string, double> noise;
  for (const std::string& name : options.goldens) {
    const TraceFile golden = TraceFile::open(name);
    if (!candidate.has("tokens") || golden.values("tokens") != candidate.values("tokens"))
      throw InputError(name + ": is of other tokens than the candidate; leave it out or give the "
                       "golden of this prompt");
    for (const auto& [tensor, floor] : read_golden_floor(golden)) noise[tensor] = floor.pool.row_rms;
  }
  return noise;
}

/// Our fp32 run with the candidate's tensors, as a trace beside it that is gone afterwards.
VerifyResult exact_against_model(const VerifyCommand& options, const Model& model,
                                 const TraceFile& candidate, const VerifyOptions& verify) {
  namespace fs = std::filesystem;
  const Candidate theirs(candidate, model.config(), "", std::nullopt);
  const std::vector<std::vector<int>>& tokens = theirs.tokens();
  std::vector<Hook> chosen;
  for (Hook hook : all_hooks(model.config().layers))
    if (candidate.has(hook_name(hook))) chosen.push_back(hook);
  std::error_code error;
  const fs::path folder = fs::temp_directory_path(error);
  if (error)
    refuse("TMPDIR", error.message() + ", expected a folder for our own run's tensors",
           "set it to a writable folder");
  const fs::path temporary = folder / ("sinkref-verify-" + std::to_string(::getpid()) + ".safetensors");
  struct Gone {
    fs::path path;
    ~Gone() {
      std::error_code ignored;
      fs::remove(path, ignored);
    }
  } gone{temporary};
  Hooks<float> hooks;
  add_patch(verify.patch, hooks);
  add_ablation(verify.ablation, hooks);
  TraceWriter<float> writer(
      temporary, true, model.config(), chosen, tokens,
      trace_metadata(model, model.config().layers, "fp32", options.softmax),
      candidate.has("positions") ? theirs.positions() : std::vector<size_t>());
  writer.attach(hooks);
  run(model, run_options(options), tokens, hooks);
  writer.commit();
  return verify_traces(TraceFile::open(temporary), candidate, {}, true);
}

VerifyOptions verify_options(const VerifyCommand& options, const Model& model, Progress& progress) {
  VerifyOptions verify;
  verify.kernel = options.kernel;
  verify.softmax = options.softmax;
  verify.patch = chosen_patch(options, model);
  verify.ablation = chosen_ablation(options, model);
  verify.activations = number_type(options.candidate_dtype);
  verify.cache = number_type(options.candidate_cache);
  verify.require = options.require;
  if (options.has_input())
    verify.tokens = read_one_sequence(options, model.checkpoint());
  try {
    const std::unique_ptr<Tokenizer> tokenizer = open_tokenizer(model.checkpoint());
    if (tokenizer->adds_bos()) verify.bos = model.config().bos_id;
  } catch (const InputError&) {  // a model without a tokenizer is compared by ids alone
  }
  if (options.budget) verify.budget = Budget::read(*options.budget, model.config().layers);
  progress.plan(1);
  progress.step("the truth in float64", 1);
  verify.share = [&progress](double share, const std::string& text) { progress.share(share, text); };
  verify.say = [&progress](const std::string& text) { progress.step(text, 0); };
  return verify;
}

VerifyReport verify_one_candidate(const VerifyCommand& options) {
  const Model model = open_model(options);
  const TraceFile candidate = TraceFile::open(*options.candidate);
  Progress progress = Progress::to_stderr();
  const VerifyOptions verify = verify_options(options, model, progress);
  VerifyReport report;
  report.reference = last_part(options.model);
  report.candidate = last_part(*options.candidate);
  report.exact = options.exact;
  report.hf_noise = hf_noise(options, candidate);
  report.result = options.exact ? exact_against_model(options, model, candidate, verify)
                                : verify_candidate(model, candidate, verify);
  if (options.certify) {
    progress.plan(2);
    progress.step("the real numbers of the decisive rows", 1);
    report.proofs = prove_rows(model, candidate, verify, report.result, [&](double share) { progress.share(share); });
  }
  progress.finish();
  report.provenance = {{"program", "sinkref " SINKREF_VERSION},
                       {"arithmetic_version", std::to_string(arithmetic_version)},
                       {"weights_sha256", model.weights_sha256(model.config().layers)},
                       {"budget_factor", std::to_string(budget_factor)},
                       {"candidate_dtype", number_type_name(report.result.arithmetic.activations)},
                       {"candidate_cache", number_type_name(report.result.arithmetic.cache)}};
  return report;
}

VerifyReport verify_two_traces(const VerifyCommand& options) {
  const TraceFile reference = TraceFile::open(options.traces[0]);
  const TraceFile candidate = TraceFile::open(options.traces[1]);
  Budget budget;
  if (options.budget) budget = Budget::read(*options.budget, most_layers);
  VerifyReport report;
  report.reference = last_part(options.traces[0]);
  report.candidate = last_part(options.traces[1]);
  report.exact = options.exact || budget.empty();
  report.result = verify_traces(reference, candidate, budget, options.exact);
  if (!options.exact && budget.empty())
    report.result.notes.push_back("bits were compared: two traces alone have no rounding budget; "
                                  "give --budget, or --model and --candidate");
  report.provenance = {{"program", "sinkref " SINKREF_VERSION}};
  return report;
}

void check_usage(const VerifyCommand& options) {
  if (options.traces.size() == 1)
    throw InputError("verify: one trace alone; give two, or --model M --candidate " +
                     quoted(options.traces[0]));
  if (options.traces.size() > 2)
    throw InputError("verify: " + std::to_string(options.traces.size()) + " traces, expected two");
  if (!options.traces.empty() && (options.candidate || !options.goldens.empty()))
    throw InputError("verify: two traces, --candidate and --golden are three different comparisons; "
                     "choose one");
  if (options.perturb) throw InputError("verify: --perturb belongs to --self; add it");
  if (options.traces.empty() && !options.candidate && options.goldens.empty())
    throw InputError("verify: nothing to compare; expected --candidate THEIRS.safetensors, two "
                     "traces, or --golden FILE");
  if (options.certify && (!options.candidate || options.exact))
    throw InputError("verify: --certify belongs to --candidate without --exact: it proves what the candidate should be");
  if (options.exact && options.budget)
    throw InputError("verify: --exact compares bits and takes no --budget");
}

}  // namespace

/// What the chosen comparison would pass over is refused: none may agree for what it did not look at.
void VerifyCommand::check_options() const {
  std::string comparison;
  std::set<std::string> taken, passed_over;  // passed over: the options of no use, where that is the shorter list
  if (self) {
    comparison = "--self";
    taken = {"self", "perturb", "model", "prompt", "prompt-file", "tokens", "tokens-file", "bos"};
  } else if (candidate) {
    comparison = exact ? "--candidate with --exact" : "--candidate";
    passed_over = {"perturb"};
    if (exact) passed_over.insert({"require", "candidate-dtype", "candidate-cache", "write-budget"});
  } else if (!goldens.empty()) {
    comparison = "--golden";
    taken = {"golden", "kernel", "model"};
  } else {
    comparison = "the comparison of two traces";
    taken = {"traces", "exact", "budget", "write-budget", "html", "force"};
  }
  taken.insert({"json", "threads"});
  std::set<std::string> all = given;
  if (!traces.empty()) all.insert("traces");  // which stand without a name
  for (const std::string& name : all)
    if (passed_over.empty() ? !taken.contains(name) : passed_over.contains(name))
      throw InputError("verify: --" + name + " is of no use to " + comparison + ", expected only what changes it; leave it out");
}

OptionTable VerifyCommand::table() {
  return joined(
      {{{"candidate", text("FILE", candidate),
         "their trace, to be held against this model's float64 run"},
        {"golden", texts("FILE", goldens), "golden file of this model to be held against"},
        {"traces", texts("FILE", traces), "two traces to compare (given without a name)", true},
        {"self", flag(self),
         "hold this machine's runs against each other: kernels, threads, chunks, decode, batch, cache"},
        {"perturb", text("WEIGHT", perturb),
         "with --self: the weight that the negative control moves by one ulp, as 3.mlp.up_proj[17]"},
        {"exact", flag(exact), "compare bits"},
        {"budget", text("FILE", budget), "JSON file of budgets that replace the derived ones"},
        {"write-budget", text("FILE", write_budget),
         "where to write the budgets that were used, as JSON"},
        {"require", text("GLOBS", require),
         "globs of tensors their trace must hold, as 'blocks.*,logits'"},
        {"candidate-dtype", choice(candidate_dtype, {"auto", "fp32", "fp16", "bf16"}),
         "their arithmetic: auto (what the trace says), fp32, fp16, bf16"},
        {"candidate-cache", choice(candidate_cache, {"auto", "fp32", "fp16"}),
         "type of their KV cache: auto (what the trace says), fp32, fp16"},
        {"certify", flag(certify),
         "with --candidate: enclose the real numbers of the rows on which the verdict rests"},
        {"html", text("FILE", html), "write a page with the findings as well"}},
       force_row(force), prompt_rows(), id_rows(), bos_row(), patch_row(), ablate_row(),
       softmax_row(), kernel_row(), chunk_row()});
}

std::unique_ptr<Command> make_verify() { return std::make_unique<VerifyCommand>(); }

int VerifyCommand::run() const {
  const VerifyCommand& options = *this;
  if (!options.self) check_usage(options);
  check_options();
  if (options.self) return verify_self(options);
  if (options.certify) require_certify();
  if (!options.goldens.empty() && !options.candidate) return verify_goldens(options);
  std::optional<OutputFile> budget, html;  // claimed before the work
  if (options.write_budget) budget.emplace(*options.write_budget, options.force);
  if (options.html) html.emplace(*options.html, options.force);
  const VerifyReport report =
      options.candidate ? verify_one_candidate(options) : verify_two_traces(options);
  if (budget) {
    budget->append(report.result.budget.text(report.provenance));
    budget->commit();
  }
  if (html) {
    html->append(verify_html(report));
    html->commit();
  }
  if (options.json)
    std::cout << json_text(verify_json(report)) << '\n';
  else
    print_verify(report);
  return report.result.agrees ? 0 : 1;
}

}  // namespace sinkref::cli
