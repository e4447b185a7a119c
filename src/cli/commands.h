#pragma once

#include <vector>

#include "cli/options.h"

namespace sinkref::cli {

// Each command with its options in a file of its own; main.cpp has the row that describes it.
std::unique_ptr<Command> make_info();
std::unique_ptr<Command> make_tokenize();
std::unique_ptr<Command> make_generate();
std::unique_ptr<Command> make_trace();
std::unique_ptr<Command> make_score();
std::unique_ptr<Command> make_patch_sweep();
std::unique_ptr<Command> make_lens();
std::unique_ptr<Command> make_sink();
std::unique_ptr<Command> make_verify();
std::unique_ptr<Command> make_first_layer();
std::unique_ptr<Command> make_report();
std::unique_ptr<Command> make_bench();
std::unique_ptr<Command> make_eval();
std::unique_ptr<Command> make_certify();

}  // namespace sinkref::cli
