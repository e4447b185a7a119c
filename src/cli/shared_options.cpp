#include "cli/shared_options.h"

namespace sinkref::cli {

OptionTable TextCommand::prompt_rows() {
  return {{"prompt", text("TEXT", prompt), "text to run"},
          {"prompt-file", text("FILE", prompt_file), "file with the text to run; - is standard input"}};
}

OptionTable TextCommand::id_rows() {
  return {{"tokens", text("IDS", tokens), "token ids to run, as 1,2,3; 5x100 repeats token 5"},
          {"tokens-file", text("FILE", tokens_file),
           "JSON list of ids, or list of lists for a batch; - is standard input"}};
}

OptionTable TextCommand::bos_row() {
  return {{"bos",
           choice<BosPolicy>(bos, {{"auto", BosPolicy::automatic},
                                   {"on", BosPolicy::on},
                                   {"off", BosPolicy::off}}),
           "put the BOS token before a text: auto (as the checkpoint says), on, off"}};
}

OptionTable RunningCommand::kernel_row() {
  return {{"kernel", text("NAME", kernel),
           "auto, spec (the scalar text), avx2, avx512, neon: same bits; openblas: a third opinion"}};
}

OptionTable RunningCommand::precision_row() {
  return {{"precision", choice(precision, {"fp32", "fp64"}),
           "fp32, or fp64 for the truth that errors are measured against"}};
}

OptionTable RunningCommand::chunk_row() {
  return {{"chunk", number(chunk, 1),
           "tokens of a prompt per step: more are faster (512 by a tenth) and take more memory; "
           "cannot change a bit"}};
}

OptionTable RunningCommand::softmax_row() {
  return {{"softmax",
           choice<Softmax>(softmax, {{"standard", Softmax::standard}, {"one", Softmax::one}}),
           "standard, or one for softmax_1 (a virtual key of score 0)"}};
}

OptionTable RunningCommand::patch_row() {
  return {{"patch", text("NEURONS", patch),
           "the paper's patch: auto (the neurons of every sink), none or "
           "LAYER:NEURON,NEURON[;LAYER:…]"}};
}

OptionTable RunningCommand::patch_site_row() {
  std::vector<std::pair<const char*, PatchSite>> sites;
  for (const PatchSite site : patch_sites) sites.emplace_back(patch_site_name(site), site);
  return {{"patch-site", choice(patch_site, sites),
           "what --patch pins of a neuron silu(gate)*up: up (the paper), gate, both, or post (the "
           "product)"}};
}

OptionTable RunningCommand::ablate_row() {
  return {{"ablate", text("NEURONS", ablate), "neurons set to zero, as for --patch"}};
}

OptionTable RunningCommand::intervene_row() {
  return {{"intervene", text("CHANGES", intervene),
           "HOOK[@POSITIONS][#HEADS or NEURONS]=zero, mean:FILE, from:TRACE, resample:TRACE, add:[NUMBER*]VECTOR "
           "or pin:POSITION; several with ';'. --ablate 1:3 is 'blocks.1.mlp.hook_post#3=zero'"}};
}

OptionTable output_rows(std::optional<std::string>& out, bool& force, const char* argument,
                        const char* help) {
  return joined({{{"out", place(argument, out), help}}, force_row(force)});
}

OptionTable force_row(bool& force) {
  return {{"force", flag(force), "replace what is there"}};
}

}  // namespace sinkref::cli
