// trace: a run's tensors in a file.

#include <unistd.h>

#include <algorithm>
#include <iostream>

#include "cli/commands.h"
#include "cli/ids.h"
#include "cli/inputs.h"
#include "cli/output.h"
#include "model/fingerprint.h"
#include "sinkref/error.h"
#include "sinkref/trace.h"

namespace sinkref::cli {

using nlohmann::ordered_json;

namespace {

struct TraceCommand : RunningCommand {
  std::string hooks = "logits", positions = "all";
  size_t generate = 0;
  std::optional<std::string> out;
  bool force = false, fingerprint = false;

  OptionTable table() override {
    return joined({prompt_rows(), id_rows(), bos_row(),
                   {{"hooks", text("GLOBS", hooks),
                     "the tensors to write, as 'blocks.*.hook_resid_post,logits'; the quotes keep the "
                     "shell from filling in the stars"}},
                   {{"positions", text("LIST", positions),
                     "the positions to keep, as 0,5,-1: negative ones count from the end; or all"},
                    {"generate", number(generate, 0), "greedy tokens to append, with their activations"}},
                   output_rows(out, force, "FILE", "safetensors file to write"), patch_row(),
                   patch_site_row(), ablate_row(), intervene_row(), softmax_row(), precision_row(), kernel_row(),
                   chunk_row(),
                   {{"fingerprint", flag(fingerprint),
                     "a short name for the bits of the prompt's logits"}}});
  }
  int run() const override;
};

/// Appends to each prompt what the model generates from it.
template <class T>
std::vector<std::vector<int>> continued(const TraceCommand& options, const Model& model,
                                        const std::vector<std::vector<int>>& prompts,
                                        const std::function<void(Hooks<T>&, const std::vector<size_t>&)>& change) {
  std::vector<std::vector<int>> all = prompts;
  Forward<T> forward(model, run_options(options));
  for (std::vector<int>& tokens : all) {
    Hooks<T> hooks;
    change(hooks, {tokens.size()});
    const std::vector<int> more = sinkref::generate(forward, forward.start(tokens), options.generate, hooks);
    tokens.insert(tokens.end(), more.begin(), more.end());
    if (tokens.size() > model.config().max_positions) tokens.pop_back();  // chosen, but there is no room to run it
  }
  return all;
}

/// The prompts, then what was generated, as a run that generates sees them.
template <class T>
void run_continued(const Model& model, const RunOptions& options, const std::vector<std::vector<int>>& prompts,
                   const std::vector<std::vector<int>>& all, Hooks<T>& hooks) {
  Forward<T> forward(model, options, extent_of(hooks, model.config()));
  std::vector<Sequence<T>> batch;
  for (const std::vector<int>& tokens : prompts) batch.push_back(forward.start(tokens));
  forward.run(batch, hooks);
  bool more = false;
  for (size_t s = 0; s < all.size(); ++s) {
    batch[s].pending.assign(all[s].begin() + static_cast<long>(prompts[s].size()), all[s].end());
    more |= !batch[s].pending.empty();
  }
  if (more) forward.run(batch, hooks, false);
  hooks.require_all_called();
}

template <class T>
int trace_with(const TraceCommand& options, const Model& model) {
  if (!options.out) throw InputError("--out is missing; expected the safetensors file to write");
  const ModelConfig& c = model.config();
  std::vector<std::string> notes;
  const auto prompts = read_tokens(options, model.checkpoint(), &model, &notes);
  const std::vector<Hook> chosen = select_hooks(options.hooks, c.layers);
  const std::vector<Neurons> patch = chosen_patch(options, model);
  const std::vector<Neurons> ablation = chosen_ablation(options, model);
  const std::vector<HookIntervention> interventions = chosen_interventions(options, model);
  const auto change = [&](Hooks<T>& changed, const std::vector<size_t>& lengths) {
    add_patch(patch, changed, options.patch_site);
    add_ablation(ablation, changed);
    add_interventions(interventions, lengths, changed, options.generate);
  };
  for (const std::vector<int>& sequence : prompts) {
    check_tokens(model, sequence);
    if (options.generate > 0) require_room(model, sequence.size(), options.generate, "--generate");
  }
  const auto tokens = options.generate == 0 ? prompts : continued<T>(options, model, prompts, change);
  if (options.positions != "all")
    for (const std::vector<int>& sequence : tokens)
      if (sequence.size() != tokens[0].size())
        refuse("--positions", "the sequences have unequal lengths, expected one length", "trace them one by one");
  std::vector<size_t> positions;
  if (options.positions != "all") positions = parse_places(options.positions, tokens[0].size(), "--positions", "position");
  Hooks<T> hooks;
  std::vector<size_t> lengths;
  for (const std::vector<int>& sequence : prompts) lengths.push_back(sequence.size());
  change(hooks, lengths);
  RunOptions run = run_options(options);
  const bool has_logits =
      options.fingerprint || std::find(chosen.begin(), chosen.end(), Hook{HookPoint::Logits, 0}) != chosen.end();
  size_t depth = has_logits ? c.layers : 0;
  for (const Hook hook : chosen) depth = std::max(depth, blocks_needed(hook, c.layers));
  if (isatty(2))
    run.progress = [](size_t done, size_t all) {
      std::cerr << "\r" << done << " of " << all << " tokens" << (done == all ? "\n" : "");
    };
  auto metadata = trace_metadata(model, depth, options.precision, options.softmax);
  add_notes(notes, metadata);
  metadata["patch"] = neurons_text(patch);
  if (!patch.empty()) metadata["patch_site"] = patch_site_name(options.patch_site);
  metadata["ablate"] = neurons_text(ablation);
  if (!interventions.empty()) metadata["intervene"] = interventions_text(interventions);
  if (options.generate > 0) {
    std::string all;
    for (const std::vector<int>& prompt : prompts) all += (all.empty() ? "" : ",") + std::to_string(prompt.size());
    metadata["prompt_lengths"] = all;
  }
  // Its bits are not those of the arithmetic's version, nor the same on other machines.
  if (options.kernel == "openblas") metadata["kernel"] = "openblas";
  TraceWriter<T> writer(*options.out, options.force, c, chosen, tokens, metadata, positions);
  if (!options.json)
    say("writing " + std::to_string(chosen.size()) + " tensors, " +
        std::to_string(trace_bytes(c, chosen, tokens, sizeof(T), positions)) + " bytes");
  writer.attach(hooks);
  Fingerprint<T> fingerprint;
  if (has_logits) fingerprint.attach(hooks);
  if (options.generate == 0) sinkref::run(model, run, tokens, hooks);
  else run_continued(model, run, prompts, tokens, hooks);
  writer.commit();
  ordered_json done = {{"out", *options.out},
                       {"bytes", writer.bytes()},
                       {"weights_sha256", metadata["weights_sha256"]}};
  if (has_logits) done["fingerprint"] = fingerprint.text(metadata["weights_sha256"]);
  if (options.json)
    std::cout << json_text(done) << '\n';
  else if (has_logits)
    say("fingerprint " + done["fingerprint"].get<std::string>());
  return 0;
}

}  // namespace

int TraceCommand::run() const {
  const Model opened = open_model(*this);
  return precision == "fp64" ? trace_with<double>(*this, opened)
                             : trace_with<float>(*this, opened);
}

std::unique_ptr<Command> make_trace() { return std::make_unique<TraceCommand>(); }

}  // namespace sinkref::cli
