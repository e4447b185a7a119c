#include "cli/study_options.h"

#include "cli/commands.h"

namespace sinkref::cli {

OptionTable StudyCommand::study_rows() {
  return joined({{{"word", single_words("WORD", words), "word to repeat; once for each word"},
                  {"prefix", text("TEXT", prefix),
                   "text before the run (default: BOS alone, or a short request)"},
                  {"repeats", noted(number(repeats, 1), repeats_given),
                   "length of the runs of one word"}},
                 id_rows(), bos_row(), softmax_row(), kernel_row(), chunk_row()});
}

OptionTable SinkCommand::table() {
  return joined({study_rows(), patch_row(),
                 {{"patch-effect", flag(patch_effect),
                   "what the patch does to the runs and to ordinary text, with the other sites "
                   "beside it"}},
                 certify_row()});
}

OptionTable StudyCommand::certify_row() {
  return {{"certify", flag(certify),
           "prove the decisive comparisons for the real numbers that the activations are: first token against text, "
           "the neurons' causal check, the shortest run that sets the sink off, and the patch on it"}};
}

OptionTable FirstLayerCommand::table() { return joined({study_rows(), precision_row()}); }

OptionTable ReportCommand::table() {
  return joined({study_rows(), patch_row(),
                 {{"paper", text("NAME", paper),
                   "set the paper's row beside the measured one: llama-1-7b, llama-2-7b, "
                   "llama-3-8b-instruct, mistral-7b-instruct"},
                  {"golden", texts("FILE", goldens), "golden file of this model to be held against"}},
                 certify_row(), output_rows(out, force, "FOLDER", "folder for report.json, report.html and figures")});
}

std::unique_ptr<Command> make_sink() { return std::make_unique<SinkCommand>(); }
std::unique_ptr<Command> make_first_layer() { return std::make_unique<FirstLayerCommand>(); }
std::unique_ptr<Command> make_report() { return std::make_unique<ReportCommand>(); }

}  // namespace sinkref::cli
