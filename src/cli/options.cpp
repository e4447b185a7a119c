#include "cli/options.h"

#include <algorithm>
#include <boost/program_options.hpp>
#include <iostream>

#include "sinkref/error.h"
#include "eval/eval.h"
#include "sinkref/hooks.h"
#include "sinkref/tiny_model.h"

namespace sinkref::cli {

namespace po = boost::program_options;

namespace {

/// A whole number within limits; Boost alone would take -1 for a huge one.
size_t whole_number(const po::variables_map& values, const char* name, size_t least,
                    size_t most) {
  const std::string text = values[name].as<std::string>();
  const bool digits =
      !text.empty() && text.size() <= 9 &&
      std::all_of(text.begin(), text.end(), [](unsigned char c) { return c >= '0' && c <= '9'; });
  if (!digits || std::stoul(text) < least || std::stoul(text) > most)
    throw InputError("--" + std::string(name) + " " + quoted(text) +
                     ": expected a whole number from " + std::to_string(least) + " to " +
                     std::to_string(most));
  return std::stoul(text);
}

std::string one_of(const po::variables_map& values, const char* name,
                   const std::vector<std::string>& choices) {
  const std::string text = values[name].as<std::string>();
  if (std::find(choices.begin(), choices.end(), text) != choices.end()) return text;
  std::string list;
  for (const std::string& choice : choices) list += (list.empty() ? "" : ", ") + choice;
  throw InputError("--" + std::string(name) + " " + quoted(text) + ": expected one of " + list);
}

PatchSite patch_site(const po::variables_map& values) {
  std::vector<std::string> names;
  for (PatchSite site : patch_sites) names.push_back(patch_site_name(site));
  const std::string name = one_of(values, "patch-site", names);
  return *std::find_if(std::begin(patch_sites), std::end(patch_sites),
                       [&](PatchSite site) { return name == patch_site_name(site); });
}

po::options_description describe(const Command& command) {
  using Text = std::string;
  const auto text = [](const char* fallback) {
    return po::value<Text>()->default_value(fallback);
  };
  po::options_description all("Options");
  const auto has = [&](const char* name) {
    return std::any_of(command.options.begin(), command.options.end(),
                       [&](const char* own) { return Text(own) == name; });
  };
  const auto add = [&](const char* name, const po::value_semantic* value, const char* help) {
    if (has(name)) all.add_options()(name, value, help);
    else delete value;
  };
  all.add_options()("model", po::value<Text>(),
                    "Hugging Face folder or .gguf file (default: the tiny model that comes along)");
  all.add_options()("threads", text("0"), "OpenMP threads, 0 for all; cannot change a bit");
  add("prompt", po::value<Text>(), "text to run");
  add("prompt-file", po::value<Text>(), "file with the text to run");
  add("tokens", po::value<Text>(), "token ids to run, as 1,2,3; 5x100 repeats token 5");
  add("tokens-file", po::value<Text>(), "JSON list of ids, or list of lists for a batch");
  add("bos", text("auto"), "put the BOS token first: auto (as the checkpoint says), on, off");
  add("kernel", text("auto"), "auto, spec (the scalar text), avx2, avx512, neon: same bits; openblas: a third opinion");
  add("precision", text("fp32"), "fp32, or fp64 for the truth that errors are measured against");
  const size_t chunk = has("samples") ? eval_batch_rows : has("repeats") ? 512 : RunOptions().chunk;
  add("chunk", text(std::to_string(chunk).c_str()),
      "tokens of a prompt per step: more are faster (512 by a tenth) and take more memory; cannot change a bit");
  add("softmax", text("standard"), "standard, or one for softmax_1 (a virtual key of score 0)");
  add("patch", text(has("repeats") ? "auto" : "none"),
      "the paper's patch: auto (the neurons of every sink), none or LAYER:NEURON,NEURON[;LAYER:…]");
  add("patch-site", text("up"),
      "what --patch pins of a neuron silu(gate)*up: up (the paper), gate, both, or post (the product)");
  add("patch-effect", po::bool_switch(),
      "what the patch does to the runs and to ordinary text, with the other sites beside it");
  add("ablate", text("none"), "neurons set to zero, as for --patch");
  add("hooks", text("logits"), "globs of the tensors to write, as 'blocks.*.hook_resid_post,logits'");
  add("max-new-tokens", text("64"), "length of the greedy continuation");
  add("repeats", text("1000"), "length of the runs of one word");
  add("word", po::value<std::vector<Text>>(), "word to repeat; may be given several times");
  add("prefix", po::value<Text>(), "text before the run (default: BOS alone, or a short request)");
  add("self", po::bool_switch(), "hold this machine's runs against each other: kernels, threads, chunks, "
                                 "decode, batch, cache");
  add("perturb", po::value<Text>(), "with --self: the weight that the negative control moves by one ulp, "
                                    "as 3.mlp.up_proj[17]");
  add("fingerprint", po::bool_switch(), "a short name for the bits of the prompt's logits");
  add("prefill", text("0"), "tokens of the prompt to time, 0 for none");
  add("decode", text("0"), "tokens to time one at a time after the prompt, 0 for none");
  add("shapes", text(""), "matrices to time: llama-2-7b, llama-3-8b, mistral-7b, smollm2 (all four if no "
                          "model is timed), or OUTPUTSxINPUTS");
  add("rows", text("1,4,16,64,512"), "rows of activations of each matrix product");
  add("dtype", text("F32"), "stored types of the weights, as F32,F16,BF16,Q4_1");
  add("runs", text("5"), "rounds in which all that is timed takes turns; medians are printed");
  add("paper", po::value<Text>(),
      "set the paper's row beside the measured one: llama-1-7b, llama-2-7b, llama-3-8b-instruct, "
      "mistral-7b-instruct");
  add("golden", po::value<std::vector<Text>>(), "golden file of this model to be held against");
  add("traces", po::value<std::vector<Text>>(), "two traces to compare (given without a name)");
  add("candidate", po::value<Text>(), "their trace, to be held against this model's float64 run");
  add("exact", po::bool_switch(), "compare bits");
  add("budget", po::value<Text>(), "JSON file of budgets that replace the derived ones");
  add("write-budget", po::value<Text>(), "where to write the budgets that were used, as JSON");
  add("require", po::value<Text>(), "globs of tensors their trace must hold, as 'blocks.*,logits'");
  add("candidate-dtype", text("auto"), "their arithmetic: auto (what the trace says), fp32, fp16, bf16");
  add("candidate-cache", text("auto"), "type of their KV cache: auto (what the trace says), fp32, fp16");
  add("html", po::value<Text>(), "write a page with the findings as well");
  add("data", po::value<std::vector<Text>>()->multitoken(), "files of items, .jsonl or .jsonl.gz");
  add("samples", po::value<Text>(), "file for one line per item and variant, filled as they come; the "
                                    "same command again goes on where it was stopped");
  add("tasks", po::value<Text>(), "only these tasks of the data, as arc_easy,mmlu");
  add("limit", text("0"), "only so many items of each task, 0 for all");
  add("seed", po::value<Text>(), "with --limit: a random sample instead of the first items");
  add("few-shot", po::value<Text>(), "file of prefixes by subject: MMLU 5-shot");
  add("variant", text("both"), "both, original or patched");
  add("shard", po::value<Text>(), "I/N: only part I (from 0) of N, to be put together by --merge");
  add("merge", po::value<std::vector<Text>>()->multitoken(), "samples files of all shards");
  add("out", po::value<Text>(), "where to write");
  add("force", po::bool_switch(), "replace what is there");
  add("json", po::bool_switch(), "machine-readable result on stdout");
  all.add_options()("help", "this text");
  return all;
}

/// The names that --hooks matches, in the order in which they are computed.
std::string hooks_text() {
  std::string text = "\nHooks (layer 0 stands for every layer):\n";
  for (const Hook hook : all_hooks(1)) {
    const std::string name = hook_name(hook);
    text += "  " + name + std::string(name.size() < 32 ? 32 - name.size() : 1, ' ') +
            hook_meaning(hook.point) + '\n';
  }
  return text;
}

void print_help(const Command& command, const po::options_description& options) {
  std::cout << "sinkref " << command.name << ": " << command.summary << "\n\nExample:\n  "
            << command.example << "\n\n"
            << options << (options.find_nothrow("hooks", false) ? hooks_text() : "")
            << "\nExit: 0 done, 1 a check failed, 2 bad input or usage, 3 internal error.\n";
}

Options fill(const po::variables_map& values) {
  Options o;
  const auto optional = [&](const char* name, std::optional<std::string>& into) {
    if (values.count(name)) into = values[name].as<std::string>();
  };
  const auto text = [&](const char* name, std::string& into) {
    if (values.count(name)) into = values[name].as<std::string>();
  };
  const auto number = [&](const char* name, size_t least, size_t most, size_t& into) {
    if (values.count(name)) into = whole_number(values, name, least, most);
  };
  const auto list = [&](const char* name, std::vector<std::string>& into) {
    if (values.count(name)) into = values[name].as<std::vector<std::string>>();
  };
  o.model_given = values.count("model") != 0;
  o.model = o.model_given ? values["model"].as<std::string>() : tiny_model().string();
  if (o.model.empty()) throw InputError("--model is empty; expected a folder or a .gguf file");
  optional("prompt", o.prompt);
  optional("prompt-file", o.prompt_file);
  optional("tokens", o.tokens);
  optional("tokens-file", o.tokens_file);
  optional("out", o.out);
  if (o.out && o.out->empty()) throw InputError("--out is empty; expected a place to write to");
  optional("prefix", o.prefix);
  optional("paper", o.paper);
  list("word", o.words);
  list("golden", o.goldens);
  list("traces", o.traces);
  list("data", o.data);
  list("merge", o.merge);
  optional("samples", o.samples);
  optional("tasks", o.tasks);
  optional("few-shot", o.few_shot);
  optional("shard", o.shard);
  if (values.count("seed")) o.seed = whole_number(values, "seed", 0, 999999999);
  optional("candidate", o.candidate);
  optional("budget", o.budget);
  optional("write-budget", o.write_budget);
  optional("html", o.html);
  text("require", o.require);
  text("kernel", o.kernel);
  text("patch", o.patch);
  text("ablate", o.ablate);
  text("hooks", o.hooks);
  o.self = values.count("self") && values["self"].as<bool>();
  optional("perturb", o.perturb);
  o.fingerprint = values.count("fingerprint") && values["fingerprint"].as<bool>();
  text("shapes", o.shapes);
  text("rows", o.rows);
  text("dtype", o.dtype);
  number("prefill", 0, 999999999, o.prefill);
  number("decode", 0, 999999999, o.decode);
  number("runs", 1, 1000, o.runs);
  number("threads", 0, 1024, o.threads);
  number("chunk", 1, 999999999, o.chunk);
  number("max-new-tokens", 1, 999999999, o.max_new_tokens);
  number("repeats", 1, 999999999, o.repeats);
  o.patch_effect = values.count("patch-effect") && values["patch-effect"].as<bool>();
  o.repeats_given = values.count("repeats") && !values["repeats"].defaulted();
  number("limit", 0, 999999999, o.limit);
  if (values.count("variant"))
    o.variant = one_of(values, "variant", {"both", "original", "patched"});
  if (values.count("precision")) o.precision = one_of(values, "precision", {"fp32", "fp64"});
  if (values.count("candidate-dtype"))
    o.candidate_dtype = one_of(values, "candidate-dtype", {"auto", "fp32", "fp16", "bf16"});
  if (values.count("candidate-cache"))
    o.candidate_cache = one_of(values, "candidate-cache", {"auto", "fp32", "fp16"});
  if (values.count("softmax"))
    o.softmax = one_of(values, "softmax", {"standard", "one"}) == "one" ? Softmax::one
                                                                        : Softmax::standard;
  if (values.count("patch-site")) o.patch_site = patch_site(values);
  if (values.count("bos")) {
    const std::string bos = one_of(values, "bos", {"auto", "on", "off"});
    o.bos = bos == "auto" ? BosPolicy::automatic : bos == "on" ? BosPolicy::on : BosPolicy::off;
  }
  o.exact = values.count("exact") && values["exact"].as<bool>();
  o.json = values.count("json") && values["json"].as<bool>();
  o.force = values.count("force") && values["force"].as<bool>();
  return o;
}

}  // namespace

std::optional<Options> parse_options(const Command& command, int argc, const char* const* argv) {
  const po::options_description options = describe(command);
  po::variables_map values;
  try {
    // No guessing of abbreviated names: a script must not change its meaning with a new option.
    po::positional_options_description unnamed;
    if (options.find_nothrow("traces", false) != nullptr) unnamed.add("traces", -1);
    const int style = po::command_line_style::unix_style & ~po::command_line_style::allow_guessing;
    po::store(po::command_line_parser(argc, argv)
                  .options(options)
                  .positional(unnamed)
                  .style(style)
                  .run(),
              values);
  } catch (const po::error& e) {
    throw InputError(std::string(command.name) + ": " + e.what() +
                     "; sinkref " + command.name + " --help lists the options");
  }
  if (values.count("help")) {
    print_help(command, options);
    return std::nullopt;
  }
  return fill(values);
}

}  // namespace sinkref::cli
