#pragma once

#include "cli/options.h"
#include "sinkref/forward.h"
#include "sinkref/interventions.h"
#include "sinkref/tokenizer.h"

// What several commands take. Each lists the rows that it takes in its own table; the other members
// keep their defaults.

namespace sinkref::cli {

/// Text or token ids to run.
struct TextCommand : Command {
  std::optional<std::string> prompt, prompt_file, tokens, tokens_file;
  BosPolicy bos = BosPolicy::automatic;

  bool has_ids() const { return tokens || tokens_file; }
  bool has_input() const { return prompt || prompt_file || has_ids(); }

 protected:
  OptionTable prompt_rows();
  OptionTable id_rows();
  OptionTable bos_row();
};

/// How a model is run.
struct RunningCommand : TextCommand {
  std::string kernel = "auto", precision = "fp32", patch = "none", ablate = "none",
              intervene = "none";
  size_t chunk = RunOptions().chunk;
  Softmax softmax = Softmax::standard;
  PatchSite patch_site = PatchSite::up;

 protected:
  OptionTable kernel_row();
  OptionTable precision_row();
  OptionTable chunk_row();
  OptionTable softmax_row();
  OptionTable patch_row();
  OptionTable patch_site_row();
  OptionTable ablate_row();
  OptionTable intervene_row();
};

/// A place to write to.
OptionTable output_rows(std::optional<std::string>& out, bool& force, const char* argument,
                        const char* help);
OptionTable force_row(bool& force);

}  // namespace sinkref::cli
