// What sink, first-layer and report run on.

#include "cli/experiment.h"

#include <unistd.h>

#include <iostream>

#include "cli/inputs.h"
#include "cli/output.h"
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

/// With the tokens done of each run, where a person looks.
RunOptions watched_run(const StudyCommand& options) {
  RunOptions run = run_options(options);
  if (isatty(2))
    run.progress = [](size_t done, size_t all) {
      if (all > 256) std::cerr << "\r  " << done << " of " << all << " tokens" << (done == all ? "\r\033[K" : "");
    };
  return run;
}

}  // namespace

Experiment experiment_for(const StudyCommand& options, const Model& model, size_t repeats) {
  find_kernels<float>(options.kernel);  // a wrong one shows here
  StimulusChoice choice{{}, options.words, options.prefix, options.bos, repeats, options.repeats_given};
  if (options.has_ids()) {
    choice.ids = read_one_sequence(options, model.checkpoint());
    check_tokens(model, *choice.ids);
  }
  Experiment experiment{model,           last_part(options.model), run_options(options), stimuli_for(model, choice),
                        options.precision, options.paper,       options.goldens,      say};
  if (experiment.stimuli.tokenizer)
    for (const std::string& word : options.words) note_last_token(*experiment.stimuli.tokenizer, word);
  return experiment;
}

Experiment sink_experiment(const StudyCommand& options, const Model& model) {
  size_t repeats = options.repeats;
  if (options.paper && !options.repeats_given)  // a quarter more than the paper needed
    repeats = published_row(*options.paper).repeats * 5 / 4;
  Experiment experiment = experiment_for(options, model, repeats);
  experiment.run = watched_run(options);
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
