// sinkref: the table of contents. Parse, run one command, turn errors into one line and a code.

#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <filesystem>
#include <iostream>
#include <new>

#include "cli/commands.h"
#include "sinkref/error.h"
#include "sinkref/kernels.h"
#include "base/output_file.h"
#include "base/threads.h"

namespace {

using namespace sinkref;
using cli::Command;

const std::vector<Command> commands = {
    {"info", "configuration, tensors, dtypes and the memory it will need; reads no weights",
     "sinkref info --model models/SmolLM2-135M-Instruct.Q4_1.gguf", {"json"}, cli::info},
    {"tokenize", "token ids and pieces of a text; needs no weights",
     "sinkref tokenize --model MODEL --prompt 'Hello world' --json",
     {"prompt", "prompt-file", "tokens", "tokens-file", "bos", "json"}, cli::tokenize},
    {"generate", "greedy continuation of a prompt",
     "sinkref generate --model MODEL --prompt 'The capital of France is' --max-new-tokens 8",
     {"prompt", "prompt-file", "tokens", "tokens-file", "bos", "kernel", "precision", "chunk",
      "softmax", "patch", "patch-site", "ablate", "max-new-tokens", "fingerprint", "json"},
     cli::generate},
    {"trace", "run a prompt and write the tensors chosen by --hooks to a safetensors file",
     "sinkref trace --model MODEL --prompt Hello --hooks 'blocks.*.hook_resid_post' --out t.safetensors",
     {"prompt", "prompt-file", "tokens", "tokens-file", "bos", "kernel", "precision", "chunk",
      "softmax", "patch", "patch-site", "ablate", "hooks", "out", "force", "fingerprint", "json"},
     cli::trace},
    {"verify", "where another implementation first leaves the truth by more than rounding",
     "sinkref verify --model MODEL --candidate THEIRS.safetensors",
     {"traces", "self", "perturb", "candidate", "golden", "exact", "budget", "write-budget", "require",
      "candidate-dtype", "candidate-cache", "prompt", "prompt-file", "tokens", "tokens-file", "bos",
      "kernel", "chunk", "softmax", "patch", "ablate", "html", "force", "json"},
     cli::verify},
    {"sink", "sink layers, sink neurons with the causal check, repeats needed",
     "sinkref sink --model MODEL --repeats 1000 --json",
     {"tokens", "tokens-file", "bos", "kernel", "chunk", "softmax", "word",
      "prefix", "repeats", "patch", "patch-effect", "json"},
     cli::sink},
    {"first-layer", "why a position that sees only itself is recognised, and the cluster attack",
     "sinkref first-layer --model MODEL --repeats 500 --json",
     {"tokens", "tokens-file", "bos", "kernel", "precision", "chunk", "softmax", "word", "prefix",
      "repeats", "json"},
     cli::first_layer},
    {"report", "all of the paper for one model: findings, figures and one page, report.html",
     "sinkref report --model MODEL --golden reference_outputs/smollm2/golden_text.safetensors --out report",
     {"tokens", "tokens-file", "bos", "kernel", "chunk", "softmax", "word",
      "prefix", "repeats", "paper", "patch", "golden", "out", "force", "json"},
     cli::report},
    {"bench", "speed of the kernels and of a whole model, with OpenBLAS and the machine's limits beside",
     "sinkref bench --model MODEL --prefill 512 --decode 64 --json",
     {"prefill", "decode", "shapes", "rows", "dtype", "runs", "kernel", "chunk", "json"},
     cli::bench},
    {"eval", "multiple-choice tasks by log-likelihood as lm-evaluation-harness, original against patched",
     "sinkref eval --model MODEL --data arc_easy.jsonl.gz mmlu.jsonl.gz --patch auto --samples s.jsonl",
     {"data", "tasks", "limit", "seed", "few-shot", "samples", "variant", "shard", "merge", "bos",
      "kernel", "precision", "chunk", "softmax", "patch", "ablate", "out", "force", "json"},
     cli::eval},
};

/// The message on one line, whatever a file name or an argument has brought into it.
void print_error(const std::string& message) {
  std::string line = "sinkref: " + message;
  for (char& c : line)
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
  std::cerr << line << '\n';
}

void print_commands() {
  std::cout << "sinkref: deterministic fp32 transformers, the ground truth for attention sinks and\n"
               "the repeated-token phenomenon.\n\nUsage: sinkref COMMAND --model PATH [options]\n\n";
  for (const Command& command : commands)
    std::cout << "  " << command.name << std::string(12 - std::string(command.name).size(), ' ')
              << command.summary << '\n';
  std::cout << "\nsinkref COMMAND --help explains one. PATH is a Hugging Face folder or a .gguf "
               "file;\nwithout --model the tiny model that comes along is run.\n";
}

/// Reading a page of a mapped file that was cut short meanwhile ends here.
void file_changed(int) {
  constexpr char message[] =
      "sinkref: a model file became shorter while it was being read; fetch it again\n";
  [[maybe_unused]] const ssize_t written = ::write(2, message, sizeof message - 1);
  remove_unfinished_files();
  ::_exit(2);
}

/// Leaves nothing half-written, then ends as the signal would have ended it.
void interrupted(int signal) {
  remove_unfinished_files();
  std::signal(signal, SIG_DFL);
  ::raise(signal);
}

int run(int argc, const char* const* argv) {
  const std::string name = argc > 1 ? argv[1] : "--help";
  if (name == "--help" || name == "-h" || name == "help") {
    print_commands();
    return argc > 1 ? 0 : 2;
  }
  if (name == "--version") {
    std::cout << "sinkref " SINKREF_VERSION ", arithmetic " << arithmetic_version << '\n';
    return 0;
  }
  for (const Command& command : commands) {
    if (name != command.name) continue;
    const std::optional<cli::Options> options = cli::parse_options(command, argc - 1, argv + 1);
    if (!options) return 0;  // the help
    require_fma();
    set_thread_count(options->threads);
    return command.run(*options);
  }
  throw InputError("there is no command " + quoted(name) + "; sinkref --help lists them");
}

}  // namespace

int main(int argc, char** argv) {
  std::signal(SIGBUS, file_changed);
  std::signal(SIGXFSZ, SIG_IGN);  // a size limit is then an error of write(), which cleans up
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE, SIGALRM, SIGUSR1, SIGUSR2, SIGXCPU})
    if (std::signal(signal, interrupted) == SIG_IGN) std::signal(signal, SIG_IGN);  // nohup
  try {
    const int code = run(argc, argv);
    std::cout.flush();
    if (!std::cout || std::ferror(stdout))
      throw InputError("standard output cannot be written; is its disk full?");
    return code;
  } catch (const InputError& e) {
    print_error(e.what());
    return 2;
  } catch (const std::filesystem::filesystem_error& e) {
    print_error(e.path1().string() + ": " + e.code().message() + ", expected a usable path; check it");
    return 2;
  } catch (const std::bad_alloc&) {
    print_error("not enough memory for this input; use a shorter one");
    return 2;
  } catch (const std::exception& e) {
    print_error(std::string("internal error: ") + e.what());
    return 3;
  }
}
