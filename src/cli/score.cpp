// score: how probable a text is to a model, token by token.

#include <cmath>
#include <iostream>

#include "cli/commands.h"
#include "cli/inputs.h"
#include "cli/output.h"
#include "eval/eval.h"
#include "sinkref/error.h"

namespace sinkref::cli {

using nlohmann::ordered_json;

namespace {

struct ScoreCommand : RunningCommand {
  OptionTable table() override {
    return joined({prompt_rows(), id_rows(), bos_row(), patch_row(), patch_site_row(), ablate_row(), intervene_row(),
                   softmax_row(), precision_row(), kernel_row(), chunk_row()});
  }
  int run() const override;
};

template <class T>
int score_with(const ScoreCommand& options, const Model& model) {
  const auto batch = read_tokens(options, model.checkpoint(), &model);
  if (batch.size() != 1)
    refuse(*options.tokens_file, "holds " + std::to_string(batch.size()) + " sequences, expected one",
           "score them one by one");
  const std::vector<int>& tokens = batch[0];
  check_tokens(model, tokens);
  if (tokens.size() < 2)
    refuse("the prompt", "is one token, expected at least two: the first has none before it", "give a longer text");
  Hooks<T> hooks;
  add_patch(chosen_patch(options, model), hooks, options.patch_site);
  add_ablation(chosen_ablation(options, model), hooks);
  add_interventions(chosen_interventions(options, model), {tokens.size()}, hooks);
  std::vector<double> log_probs(tokens.size() - 1);
  add_log_probs(find_kernels<T>(options.kernel), tokens.data() + 1, 0, log_probs.data(), hooks);
  // The last token is only predicted.
  sinkref::run(model, run_options(options), {std::vector<int>(tokens.begin(), tokens.end() - 1)}, hooks);
  double sum = 0;
  for (const double x : log_probs) sum += x;
  const double perplexity = std::exp(-sum / static_cast<double>(log_probs.size()));
  if (options.json) {
    ordered_json list = {nullptr};
    for (const double x : log_probs) list.push_back(x);
    std::cout << json_text({{"tokens", tokens}, {"logprobs", list}, {"perplexity", perplexity}}) << '\n';
    return 0;
  }
  for (size_t i = 0; i < tokens.size(); ++i)
    std::cout << tokens[i] << '\t' << (i == 0 ? "" : std::to_string(log_probs[i - 1])) << '\n';
  std::cout << "perplexity\t" << perplexity << '\n';
  return 0;
}

}  // namespace

int ScoreCommand::run() const {
  const Model opened = open_model(*this);
  return precision == "fp64" ? score_with<double>(*this, opened) : score_with<float>(*this, opened);
}

std::unique_ptr<Command> make_score() { return std::make_unique<ScoreCommand>(); }

}  // namespace sinkref::cli
