// generate: a prompt's greedy continuation.

#include <iostream>

#include "cli/commands.h"
#include "cli/inputs.h"
#include "cli/output.h"
#include "model/fingerprint.h"
#include "sinkref/error.h"
#include "tokenizer/stream_decoder.h"

namespace sinkref::cli {

using nlohmann::ordered_json;

namespace {

struct GenerateCommand : RunningCommand {
  size_t max_new_tokens = 64;
  bool fingerprint = false;

  OptionTable table() override {
    return joined({prompt_rows(), id_rows(), bos_row(),
                   {{"max-new-tokens", number(max_new_tokens, 1),
                     "length of the greedy continuation"}},
                   patch_row(), patch_site_row(), ablate_row(), intervene_row(), softmax_row(), precision_row(),
                   kernel_row(), chunk_row(),
                   {{"fingerprint", flag(fingerprint),
                     "a short name for the bits of the prompt's logits"}}});
  }
  int run() const override;
};

template <class T>
int generate_with(const GenerateCommand& options, const Model& model) {
  const auto batch = read_tokens(options, model.checkpoint(), &model);
  const std::vector<Neurons> patch = chosen_patch(options, model);
  const std::vector<Neurons> ablation = chosen_ablation(options, model);
  std::unique_ptr<Tokenizer> tokenizer;
  try {
    tokenizer = Tokenizer::open(model.checkpoint());
  } catch (const InputError&) {
    if (!options.has_ids()) throw;
  }
  Forward<T> forward(model, run_options(options));
  std::vector<Sequence<T>> sequences;
  for (const std::vector<int>& tokens : batch) {
    sequences.push_back(forward.start(tokens));
    require_room(model, tokens.size(), options.max_new_tokens, "--max-new-tokens");
  }
  if (!tokenizer && !options.json) say("no tokenizer: printing token ids");
  ordered_json all = ordered_json::array();
  const std::vector<HookIntervention> interventions = chosen_interventions(options, model);
  for (Sequence<T>& sequence : sequences) {
    Hooks<T> hooks;
    add_patch(patch, hooks, options.patch_site);
    add_ablation(ablation, hooks);
    add_interventions(interventions, {sequence.pending.size()}, hooks, options.max_new_tokens);
    Fingerprint<T> fingerprint;
    if (options.fingerprint) fingerprint.attach(hooks);
    std::optional<StreamDecoder> text;
    if (tokenizer) text.emplace(*tokenizer);
    const auto print = [&](int id) {
      if (options.json) return;
      std::cout << (text ? text->push(id) : std::to_string(id) + " ") << std::flush;
    };
    const std::vector<int> ids =
        sinkref::generate(forward, std::move(sequence), options.max_new_tokens, hooks, print);
    if (!options.json) std::cout << (text ? text->finish() : "") << '\n';
    all.push_back({{"tokens", ids}, {"text", tokenizer ? text_of(*tokenizer, ids) : ""}});
    if (!options.fingerprint) continue;
    all.back()["fingerprint"] = fingerprint.text(model);
    if (!options.json) say("fingerprint " + all.back()["fingerprint"].get<std::string>());
  }
  if (options.json) std::cout << json_text(all.size() == 1 ? all[0] : all) << '\n';
  return 0;
}

}  // namespace

int GenerateCommand::run() const {
  const Model opened = open_model(*this);
  return precision == "fp64" ? generate_with<double>(*this, opened)
                             : generate_with<float>(*this, opened);
}

std::unique_ptr<Command> make_generate() { return std::make_unique<GenerateCommand>(); }

}  // namespace sinkref::cli
