#pragma once

#include <optional>
#include <string>
#include <vector>

#include "sinkref/forward.h"
#include "sinkref/patch.h"
#include "sinkref/tokenizer.h"

namespace sinkref::cli {

/// The command line, parsed and checked for form. One field per option.
struct Options {
  std::string model;
  size_t prefill = 0, decode = 0, runs = 5;  // bench
  std::string shapes, rows, dtype;
  bool self = false;  // verify
  std::optional<std::string> perturb;
  bool fingerprint = false;
  bool model_given = false;  ///< otherwise it is the tiny model that comes along
  std::optional<std::string> prompt, prompt_file, tokens, tokens_file;
  std::optional<std::string> out, prefix, paper;
  std::vector<std::string> words, goldens, traces, data, merge;
  std::optional<std::string> candidate, budget, write_budget, html;
  std::optional<std::string> samples, tasks, few_shot, shard;
  std::optional<size_t> seed;
  std::string require, candidate_dtype = "auto", candidate_cache = "auto";
  std::string kernel = "auto", precision = "fp32", patch = "none", ablate = "none";
  std::string hooks = "logits", variant = "both";
  BosPolicy bos = BosPolicy::automatic;
  Softmax softmax = Softmax::standard;
  PatchSite patch_site = PatchSite::up;
  size_t threads = 0, chunk = RunOptions().chunk, max_new_tokens = 64, repeats = 1000, limit = 0;
  bool patch_effect = false;
  bool repeats_given = false;  ///< otherwise a short context may cut them
  bool json = false, force = false, exact = false;
};

struct Command {
  const char* name;
  const char* summary;
  const char* example;
  std::vector<const char*> options;  ///< names, besides --model, --threads and --help
  int (*run)(const Options&);
};

/// Throws InputError for an option that is unknown, unknown to this command, or malformed; nothing
/// if the help was asked for and printed.
std::optional<Options> parse_options(const Command& command, int argc, const char* const* argv);

}  // namespace sinkref::cli
