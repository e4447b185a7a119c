// What sink, first-layer and report run on.

#include "cli/experiment.h"

#include "base/shell.h"
#include "cli/inputs.h"
#include "cli/output.h"
#include "cli/prover.h"
#include "measure/paper/published.h"
#include "sinkref/error.h"

namespace sinkref::cli {

namespace {

/// A word that was asked for and is not one token runs under a name that is not all of it: say so.
void note_last_token(const Tokenizer& tokenizer, const std::string& word) {
  const size_t tokens = tokenizer.encode("the " + word, BosPolicy::off).size() -
                        tokenizer.encode("the", BosPolicy::off).size();
  if (tokens > 1)
    say("note: --word " + quoted(word) + " is " + std::to_string(tokens) +
        " tokens; its last is repeated, " + quoted(tokenizer.piece(word_token(tokenizer, word))));
}

/// The command as it can be typed again: what changes a number, nothing of how it is run.
Request request_of(const StudyCommand& o) {
  Request request{shell_quoted(o.program), shell_quoted(o.model), {}, {}, {}};
  const auto add = [](std::string& to, const char* option, const std::string& value) {
    to += std::string(" --") + option + " " + shell_quoted(value);
  };
  std::string& inputs = request.inputs;
  if (o.tokens) add(inputs, "tokens", *o.tokens);
  if (o.tokens_file) add(inputs, "tokens-file", *o.tokens_file);
  if (o.prefix) add(inputs, "prefix", *o.prefix);
  for (const std::string& word : o.words) add(inputs, "word", word);
  if (o.repeats_given) add(inputs, "repeats", std::to_string(o.repeats));
  if (o.bos != BosPolicy::automatic) add(inputs, "bos", o.bos == BosPolicy::on ? "on" : "off");
  if (o.softmax == Softmax::one) add(inputs, "softmax", "one");
  if (o.kernel == "openblas") add(inputs, "kernel", "openblas");  // its bits are its own
  if (o.patch != "auto") add(request.patch, "patch", o.patch);
  if (o.paper) add(request.report_only, "paper", *o.paper);
  for (const std::string& golden : o.goldens) add(request.report_only, "golden", golden);
  if (o.certify) request.report_only += " --certify";
  return request;
}

}  // namespace

Experiment experiment_for(const StudyCommand& options, const Model& model, size_t repeats) {
  find_kernels<float>(options.kernel);  // a wrong one shows here
  StimulusChoice choice{{}, options.words, options.prefix, options.bos, repeats, options.repeats_given};
  if (options.has_ids()) {
    choice.ids = read_one_sequence(options, model.checkpoint());
    check_tokens(model, *choice.ids);
  }
  Experiment experiment{model, last_part(options.model), run_options(options), stimuli_for(model, choice),
                        options.precision, options.paper, options.goldens, request_of(options)};
  if (const auto& tokenizer = experiment.stimuli.tokenizer) {
    for (const std::string& note : tokenizer->notes()) say("note: " + note);
    for (const std::string& word : options.words) note_last_token(*tokenizer, word);
  }
  experiment.progress = std::make_shared<Progress>(Progress::to_stderr());
  return experiment;
}

Experiment sink_experiment(const StudyCommand& options, const Model& model) {
  size_t repeats = options.repeats;
  if (options.paper && !options.repeats_given)  // a quarter more than the paper needed
    repeats = published_row(*options.paper).repeats * 5 / 4;
  Experiment experiment = experiment_for(options, model, repeats);
  if (options.certify) experiment.prover = prover_for(model);
  if (options.patch != "auto") experiment.stimuli.patch = chosen_patch(options, model);
  const SinkInputs& shown = experiment.stimuli.sink;
  if (shown.text.size() < 2)
    throw InputError("one token is no ordinary text: its typical norm is that of a first token; "
                     "give --tokens at least two");
  if (shown.repeats < repeats)
    say("the model's context of " + std::to_string(model.config().max_positions) +
        " tokens holds " + std::to_string(shown.repeats) + " repeats, not " +
        std::to_string(repeats));
  return experiment;
}

SinkInputs patch_inputs(const TextCommand& options, const Model& model) {
  StimulusChoice choice;
  choice.bos = options.bos;
  return ordinary_text(model, choice, options.has_ids());
}

}  // namespace sinkref::cli
