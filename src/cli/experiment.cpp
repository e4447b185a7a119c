// What sink, first-layer and report run on.

#include "cli/experiment.h"

#include <unistd.h>

#include <filesystem>
#include <iostream>

#include "cli/inputs.h"
#include "measure/paper/published.h"
#include "sinkref/error.h"

namespace sinkref::cli {

namespace {

StimulusChoice choice_of(const Options& options, size_t repeats) {
  return {{}, options.words, options.prefix, options.bos, repeats, options.repeats_given};
}

/// With the tokens done of each run, where a person looks.
RunOptions watched_run(const Options& options) {
  RunOptions run = run_options(options);
  if (isatty(2))
    run.progress = [](size_t done, size_t all) {
      if (all > 256) std::cerr << "\r  " << done << " of " << all << " tokens" << (done == all ? "\r\033[K" : "");
    };
  return run;
}

}  // namespace

Experiment experiment_for(const Options& options, const Model& model, size_t repeats) {
  const Forward<float> forward(model, run_options(options));  // a wrong kernel shows here
  StimulusChoice choice = choice_of(options, repeats);
  if (options.tokens || options.tokens_file) {
    choice.ids = read_one_sequence(options, model.checkpoint());
    forward.check(*choice.ids);
  }
  return {model,
          std::filesystem::path(options.model).filename().string(),
          run_options(options),
          stimuli_for(model, choice),
          options.precision,
          options.paper,
          options.goldens,
          say};
}

Experiment sink_experiment(const Options& options, const Model& model) {
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

SinkInputs patch_inputs(const Options& options, const Model& model) {
  return ordinary_text(model, choice_of(options, 0), options.tokens || options.tokens_file);
}

}  // namespace sinkref::cli
