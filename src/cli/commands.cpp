#include "cli/commands.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <iostream>
#include <nlohmann/json.hpp>

#include "cli/inputs.h"
#include "sinkref/error.h"
#include "model/fingerprint.h"
#include "sinkref/trace.h"

namespace sinkref::cli {

using nlohmann::ordered_json;

namespace {

/// JSON text; bytes that are no UTF-8 (a token may end inside a character) are replaced.
std::string dumped(const ordered_json& value) {
  return value.dump(2, ' ', false, ordered_json::error_handler_t::replace);
}

std::string rope_text(const RopeConfig& rope) {
  char theta[32];
  std::snprintf(theta, sizeof theta, "theta %g", rope.theta);
  std::string text = theta;
  if (rope.scaling == RopeScaling::Linear)
    text += ", linear scaling by " + std::to_string(rope.factor);
  if (rope.scaling == RopeScaling::Llama3)
    text += ", llama3 scaling by " + std::to_string(rope.factor);
  // The file holds fp32 divisors of inv_freq: config.json's four numbers give other last bits.
  if (!rope.freq_divisors.empty()) text += ", divided by the rounded factors of rope_freqs.weight";
  return text;
}

ordered_json describe(const Model& model) {
  const ModelConfig& c = model.config();
  uint64_t parameters = 0, bytes = 0;
  std::map<std::string, uint64_t> dtypes;
  const auto needed = model.needed_tensors();
  for (const Model::Needed& tensor : needed) {
    const StoredTensor& stored = model.checkpoint().tensor(tensor.name, tensor.shape);
    uint64_t elements = 1;
    for (uint64_t extent : tensor.shape) elements *= extent;
    parameters += elements;
    bytes += stored.bytes;
    ++dtypes[dtype_info(stored.dtype).name];
  }
  ordered_json j = {{"model", c.model_type},
                    {"parameters", parameters},
                    {"tensors", needed.size()},
                    {"dtypes", dtypes},
                    {"weight_bytes", bytes},
                    {"cache_bytes_per_token", c.cache_bytes_per_token()},
                    {"vocab_size", c.vocab_size},
                    {"hidden_size", c.hidden_size},
                    {"intermediate_size", c.intermediate_size},
                    {"layers", c.layers},
                    {"heads", c.heads},
                    {"kv_heads", c.kv_heads},
                    {"head_dim", c.head_dim},
                    {"max_positions", c.max_positions},
                    {"sliding_window", nullptr},
                    {"rope", rope_text(c.rope)},
                    {"rms_norm_eps", c.rms_norm_eps},
                    {"attention_bias", c.attention_bias},
                    {"mlp_bias", c.mlp_bias},
                    {"tied_output", c.tied_output},
                    {"kernels", available_kernels()}};
  if (c.sliding_window) j["sliding_window"] = *c.sliding_window;
  if (!c.notes.empty()) j["notes"] = c.notes;
  return j;
}

/// A model's vocabulary may be padded beyond its tokenizer's: such ids have no text.
std::string text_of(const Tokenizer* tokenizer, std::vector<int> ids) {
  if (tokenizer == nullptr) return "";
  std::erase_if(ids, [&](int id) { return static_cast<size_t>(id) >= tokenizer->vocab_size(); });
  return tokenizer->decode(ids);
}

template <class T>
int generate_with(const Options& options, const Model& model) {
  const auto batch = read_tokens(options, model.checkpoint(), &model);
  const std::vector<Neurons> patch = chosen_patch(options, model);
  const std::vector<Neurons> ablation = chosen_ablation(options, model);
  std::unique_ptr<Tokenizer> tokenizer;
  try {
    tokenizer = Tokenizer::open(model.checkpoint());
  } catch (const InputError&) {
    if (!options.tokens && !options.tokens_file) throw;
  }
  RunOptions run = run_options(options);
  if (options.fingerprint) run.logits = LogitRows::all;
  Forward<T> forward(model, run);
  std::vector<Sequence<T>> sequences;
  for (const std::vector<int>& tokens : batch) {
    sequences.push_back(forward.start(tokens));
    if (tokens.size() + options.max_new_tokens > model.config().max_positions + 1)
      throw InputError("--max-new-tokens " + std::to_string(options.max_new_tokens) + " after " +
                       std::to_string(tokens.size()) + " tokens passes the model's limit of " +
                       std::to_string(model.config().max_positions) + "; ask for fewer");
  }
  if (!tokenizer && !options.json) say("no tokenizer: printing token ids");
  ordered_json all = ordered_json::array();
  for (Sequence<T>& sequence : sequences) {
    Hooks<T> hooks;
    add_patch(patch, hooks, options.patch_site);
    add_ablation(ablation, hooks);
    Fingerprint<T> fingerprint;
    if (options.fingerprint) fingerprint.attach(hooks);
    const auto print = [&](int id) {
      if (options.json) return;
      std::cout << (tokenizer ? text_of(tokenizer.get(), {id}) : std::to_string(id) + " ")
                << std::flush;
    };
    const std::vector<int> ids =
        sinkref::generate(forward, std::move(sequence), options.max_new_tokens, hooks, print);
    if (!options.json) std::cout << '\n';
    all.push_back({{"tokens", ids}, {"text", text_of(tokenizer.get(), ids)}});
    if (!options.fingerprint) continue;
    all.back()["fingerprint"] = fingerprint.text(model);
    if (!options.json) say("fingerprint " + all.back()["fingerprint"].get<std::string>());
  }
  if (options.json) std::cout << dumped(all.size() == 1 ? all[0] : all) << '\n';
  return 0;
}

template <class T>
int trace_with(const Options& options, const Model& model) {
  if (!options.out) throw InputError("--out is missing; expected the safetensors file to write");
  const ModelConfig& c = model.config();
  std::vector<std::string> notes;
  const auto tokens = read_tokens(options, model.checkpoint(), &model, &notes);
  const std::vector<Hook> chosen = select_hooks(options.hooks, c.layers);
  const std::vector<Neurons> patch = chosen_patch(options, model);
  const std::vector<Neurons> ablation = chosen_ablation(options, model);
  Hooks<T> hooks;
  add_patch(patch, hooks, options.patch_site);
  add_ablation(ablation, hooks);
  RunOptions run = run_options(options);
  const auto wants = [&](HookPoint point) {
    return std::find(chosen.begin(), chosen.end(), Hook{point, 0}) != chosen.end();
  };
  const bool whole = wants(HookPoint::Logits) || wants(HookPoint::LnFinalScale) ||
                     wants(HookPoint::LnFinalNormalized) || options.fingerprint;
  const bool has_logits = wants(HookPoint::Logits) || options.fingerprint;
  run.logits = has_logits ? LogitRows::all : LogitRows::none;
  size_t depth = 0;
  for (Hook hook : chosen)
    if (hook_name(hook).starts_with("blocks.")) depth = std::max(depth, hook.layer + 1);
  run.depth = whole ? c.layers : depth;
  if (isatty(2))
    run.progress = [](size_t done, size_t all) {
      std::cerr << "\r" << done << " of " << all << " tokens" << (done == all ? "\n" : "");
    };
  Forward<T> forward(model, run);
  std::vector<Sequence<T>> batch;
  for (const std::vector<int>& sequence : tokens) batch.push_back(forward.start(sequence));
  auto metadata = trace_metadata(model, run.depth, options.precision, options.softmax);
  metadata["patch"] = neurons_text(patch);
  if (!patch.empty()) metadata["patch_site"] = patch_site_name(options.patch_site);
  metadata["ablate"] = neurons_text(ablation);
  add_notes(notes, metadata);
  // Its bits are not those of the arithmetic's version, nor the same on other machines.
  if (options.kernel == "openblas") metadata["kernel"] = "openblas";
  TraceWriter<T> writer(*options.out, options.force, c, chosen, tokens, metadata);
  if (!options.json)
    say("writing " + std::to_string(chosen.size()) + " tensors, " +
        std::to_string(trace_bytes(c, chosen, tokens, sizeof(T))) + " bytes");
  writer.attach(hooks);
  Fingerprint<T> fingerprint;
  if (has_logits) fingerprint.attach(hooks);
  forward.run(batch, hooks);
  writer.commit();
  ordered_json done = {{"out", *options.out},
                       {"bytes", writer.bytes()},
                       {"weights_sha256", metadata["weights_sha256"]}};
  if (has_logits) done["fingerprint"] = fingerprint.text(metadata["weights_sha256"]);
  if (options.json)
    std::cout << dumped(done) << '\n';
  else if (has_logits)
    say("fingerprint " + done["fingerprint"].get<std::string>());
  return 0;
}

}  // namespace

int info(const Options& options) {
  const Model model = open_model(options);
  const ordered_json j = describe(model);
  if (options.json) {
    std::cout << dumped(j) << '\n';
    return 0;
  }
  for (const auto& [key, value] : j.items())
    std::cout << key << std::string(24 - std::min<size_t>(23, key.size()), ' ')
              << (value.is_string() ? value.get<std::string>() : value.dump()) << '\n';
  return 0;
}

int tokenize(const Options& options) {
  const Checkpoint checkpoint = Checkpoint::open(options.model);
  const std::unique_ptr<Tokenizer> tokenizer = Tokenizer::open(checkpoint);
  std::vector<int> ids;
  if (options.prompt && options.prompt->empty()) {
    ids = tokenizer->encode("", options.bos);  // what a model sees of no text is a fair question
  } else {
    ids = read_one_sequence(options, checkpoint);
  }
  for (int id : ids)
    if (id < 0 || static_cast<size_t>(id) >= tokenizer->vocab_size())
      refuse(options.model,
             "token id " + std::to_string(id) +
                 " is not in the tokenizer's vocabulary, expected 0 to " +
                 std::to_string(tokenizer->vocab_size() - 1),
             "give ids of this model");
  ordered_json pieces = ordered_json::array();
  for (int id : ids) pieces.push_back(tokenizer->piece(id));
  if (options.json) {
    std::cout << dumped({{"tokens", ids},
                         {"pieces", pieces},
                         {"text", tokenizer->decode(ids)},
                         {"tokenizer", tokenizer->description()}})
              << '\n';
    return 0;
  }
  for (size_t i = 0; i < ids.size(); ++i)
    std::cout << ids[i] << '\t' << quoted(tokenizer->piece(ids[i])) << '\n';
  return 0;
}

int generate(const Options& options) {
  const Model model = open_model(options);
  return options.precision == "fp64" ? generate_with<double>(options, model)
                                     : generate_with<float>(options, model);
}

int trace(const Options& options) {
  const Model model = open_model(options);
  return options.precision == "fp64" ? trace_with<double>(options, model)
                                     : trace_with<float>(options, model);
}

}  // namespace sinkref::cli
