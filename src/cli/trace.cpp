// trace: a run's tensors in a file.

#include <unistd.h>

#include <algorithm>
#include <iostream>

#include "cli/commands.h"
#include "cli/inputs.h"
#include "cli/output.h"
#include "model/fingerprint.h"
#include "sinkref/error.h"
#include "sinkref/trace.h"

namespace sinkref::cli {

using nlohmann::ordered_json;

namespace {

struct TraceCommand : RunningCommand {
  std::string hooks = "logits";
  std::optional<std::string> out;
  bool force = false, fingerprint = false;

  OptionTable table() override {
    return joined({prompt_rows(), id_rows(), bos_row(),
                   {{"hooks", text("GLOBS", hooks),
                     "the tensors to write, as 'blocks.*.hook_resid_post,logits'; the quotes keep the "
                     "shell from filling in the stars"}},
                   output_rows(out, force, "FILE", "safetensors file to write"), patch_row(),
                   patch_site_row(), ablate_row(), intervene_row(), softmax_row(), precision_row(), kernel_row(),
                   chunk_row(),
                   {{"fingerprint", flag(fingerprint),
                     "a short name for the bits of the prompt's logits"}}});
  }
  int run() const override;
};

template <class T>
int trace_with(const TraceCommand& options, const Model& model) {
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
  const std::vector<HookIntervention> interventions = chosen_interventions(options, model);
  std::vector<size_t> lengths;
  for (const std::vector<int>& sequence : tokens) lengths.push_back(sequence.size());
  add_interventions(interventions, lengths, hooks);
  RunOptions run = run_options(options);
  const bool has_logits =
      options.fingerprint || std::find(chosen.begin(), chosen.end(), Hook{HookPoint::Logits, 0}) != chosen.end();
  size_t depth = has_logits ? c.layers : 0;
  for (const Hook hook : chosen) depth = std::max(depth, blocks_needed(hook, c.layers));
  for (const std::vector<int>& sequence : tokens) check_tokens(model, sequence);
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
  // Its bits are not those of the arithmetic's version, nor the same on other machines.
  if (options.kernel == "openblas") metadata["kernel"] = "openblas";
  TraceWriter<T> writer(*options.out, options.force, c, chosen, tokens, metadata);
  if (!options.json)
    say("writing " + std::to_string(chosen.size()) + " tensors, " +
        std::to_string(trace_bytes(c, chosen, tokens, sizeof(T))) + " bytes");
  writer.attach(hooks);
  Fingerprint<T> fingerprint;
  if (has_logits) fingerprint.attach(hooks);
  sinkref::run(model, run, tokens, hooks);
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
