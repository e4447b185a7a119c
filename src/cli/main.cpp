// sinkref: the table of contents. Parse, run one command, turn errors into one line and a code.

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <iostream>
#include <new>

#include "base/closest.h"
#include "cli/commands.h"
#include "cli/output.h"
#include "sinkref/error.h"
#include "sinkref/hooks.h"
#include "sinkref/kernels.h"
#include "base/output_file.h"
#include "base/threads.h"

namespace {

using namespace sinkref;
using cli::Command;
using cli::CommandRow;

/// The names that --hooks matches, in the order in which they are computed.
std::string hooks_text() {
  std::string text = "\nHooks (layer 0 stands for every layer):\n";
  for (const Hook hook : all_hooks(1)) {
    const std::string name = hook_name(hook);
    text += "  " + name + std::string(name.size() < 32 ? 32 - name.size() : 1, ' ') +
            hook_info(hook.point).meaning + '\n';
  }
  return text;
}

/// How claims are written.
std::string certify_text() {
  return "\nClaims, one a line:\n"
         "  norm(blocks.2.hook_resid_post[0]) < 0.5 * norm(original:blocks.2.hook_resid_post[0])\n"
         "  blocks.0.attn.hook_pattern[3,1:,0] >= 0.99\n"
         "  argmax(logits[-1]) = 260\n"
         "  norms(blocks.2.hook_resid_post[1:]) < 20\n"
         "Indices are a trace's without its batch; original: is the run without --patch and --ablate; sum, abs\n"
         "and + - * / work element by element, and a relation claims all elements.\n" +
         hooks_text();
}

/// What patch-sweep does, and what it can patch.
std::string patch_sweep_text() {
  std::string text =
      "\nThe corrupted prompt is run once for each cell of layers x positions, with one activation of the clean\n"
      "prompt in its place. Both prompts have as many tokens: they differ in a word, say. A cell's number is the share\n"
      "of the metric's difference that the patch brings over, in percent: 0 where it does nothing, 100 where the\n"
      "corrupted run then answers as the clean one. Swap the prompts to see what breaks the answer.\n"
      "\nWhat --hook takes, with or without hook_ and what stands before it:\n";
  for (const Hook hook : all_hooks(1))
    if (is_in_block(hook.point) && !is_attention(hook.point)) {
      const std::string name = hook_info(hook.point).name;
      text += "  " + name + std::string(name.size() < 32 ? 32 - name.size() : 1, ' ') +
              hook_info(hook.point).meaning + '\n';
    }
  return text;
}

const std::vector<CommandRow> commands = {
    {"info", "configuration, tensors, dtypes and the memory it will need; reads no weights",
     "sinkref info --model models/SmolLM2-135M-Instruct.Q4_1.gguf", cli::make_info},
    {"tokenize", "token ids and pieces of a text; needs no weights",
     "sinkref tokenize --model MODEL --prompt 'Hello world' --json", cli::make_tokenize},
    {"generate", "greedy continuation of a prompt",
     "sinkref generate --model MODEL --prompt 'The capital of France is' --max-new-tokens 8",
     cli::make_generate},
    {"trace", "run a prompt and write the tensors chosen by --hooks to a safetensors file",
     "sinkref trace --model MODEL --prompt Hello --hooks 'blocks.*.hook_resid_post' --out t.safetensors",
     cli::make_trace, hooks_text},
    {"certify", "the real numbers that a model's activations are, correctly rounded, with the proof's radius",
     "sinkref certify --tokens 1,5,9 --hooks 'blocks.*.hook_resid_post,logits' --out c.safetensors", cli::make_certify,
     certify_text},
    {"score", "log-probability of each token of a text, and its perplexity",
     "sinkref score --model MODEL --prompt 'The capital of France is Paris' --json", cli::make_score},
    {"patch-sweep", "activation patching: where an activation of a clean prompt restores a corrupted one's answer",
     "sinkref patch-sweep --model MODEL --corrupted 'The capital of Italy is' --clean 'The capital of France is' "
     "--answer ' Paris' --wrong ' Rome'",
     cli::make_patch_sweep, patch_sweep_text},
    {"lens", "the logit lens: what the model would say after each layer",
     "sinkref lens --model MODEL --prompt 'The capital of France is' --answer ' Paris'", cli::make_lens},
    {"verify", "where another implementation first leaves the truth by more than rounding",
     "sinkref verify --model MODEL --candidate THEIRS.safetensors", cli::make_verify},
    {"sink", "sink layers, sink neurons with the causal check, repeats needed",
     "sinkref sink --model MODEL --repeats 1000 --json", cli::make_sink},
    {"first-layer", "why a position that sees only itself is recognised, and the cluster attack",
     "sinkref first-layer --model MODEL --repeats 500 --json", cli::make_first_layer},
    {"report", "all of the paper for one model: findings, figures and one page, report.html",
     "sinkref report --model MODEL --golden reference_outputs/smollm2/golden_text.safetensors --out report",
     cli::make_report},
    {"bench", "speed of the kernels and of a whole model, with OpenBLAS and the machine's limits beside",
     "sinkref bench --model MODEL --prefill 512 --decode 64 --json", cli::make_bench},
    {"eval", "multiple-choice tasks by log-likelihood as lm-evaluation-harness, original against patched",
     "sinkref eval --model MODEL --data arc_easy.jsonl.gz mmlu.jsonl.gz --patch auto --samples s.jsonl",
     cli::make_eval},
};

/// The message on one line, whatever a file name or an argument has brought into it.
void print_error(const std::string& message) {
  std::string line = "sinkref: " + message;
  for (size_t i = 0; i < line.size(); ++i) {
    const auto c = static_cast<unsigned char>(line[i]);
    // U+0080 to U+009F, of two bytes, are controls too.
    const bool wide = c == 0xc2 && i + 1 < line.size() && static_cast<unsigned char>(line[i + 1]) < 0xa0;
    if (wide) line.erase(i, 1);
    if (wide || c < 0x20 || c == 0x7f) line[i] = '?';
  }
  std::cerr << line << '\n';
}

void print_commands() {
  std::cout << "sinkref: deterministic fp32 transformers, the ground truth for attention sinks and\n"
               "the repeated-token phenomenon.\n\nUsage: sinkref COMMAND --model PATH [options]\n\n";
  for (const CommandRow& command : commands)
    std::cout << "  " << command.name << std::string(12 - std::string(command.name).size(), ' ')
              << command.summary << '\n';
  std::cout << "\nsinkref COMMAND --help explains one. PATH is a Hugging Face folder or a .gguf "
               "file;\nwithout --model the tiny model that comes along is run. sinkref help --json "
               "lists all options.\n";
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

/// Every command with all its options, for programs.
void print_table() {
  nlohmann::ordered_json all;
  for (const CommandRow& row : commands) {
    nlohmann::ordered_json& j = all[row.name];
    j = {{"summary", row.summary}, {"example", row.example}};
    const std::unique_ptr<Command> command = row.make();
    for (const cli::Option& option : cli::whole_table(*command)) {
      const cli::Value& value = option.value;
      j["options"][option.name] = {{"argument", value.argument}, {"default", value.fallback},
                                   {"choices", value.choices},   {"several", value.several},
                                   {"help", option.help}};
    }
  }
  std::cout << json_text(all) << '\n';
}

void require_written() {
  std::cout.flush();
  if (!std::cout || std::ferror(stdout))
    throw InputError("standard output cannot be written; is its disk full?");
}

int help(const std::vector<std::string>& arguments) {
  if (arguments == std::vector<std::string>{"--json"}) print_table();
  else print_commands();
  return 0;
}

const CommandRow& find_command(const std::string& name) {
  std::vector<std::string> names;
  for (const CommandRow& row : commands) {
    if (name == row.name) return row;
    names.push_back(row.name);
  }
  const std::string hint = name.starts_with('-') ? "; the command comes first, then its options"
                                                 : did_you_mean(name, names);
  throw InputError("there is no command " + quoted(name) + hint + "; sinkref --help lists them");
}

int run(const std::string& program, std::vector<std::string> arguments) {
  if (arguments.empty()) {
    print_commands();
    return 2;
  }
  std::string name = arguments[0];
  arguments.erase(arguments.begin());
  if (name == "help" && !arguments.empty() && !arguments[0].starts_with('-')) {
    name = arguments[0];
    arguments = {"--help"};
  }
  if (name == "--help" || name == "-h" || name == "help") return help(arguments);
  if (name == "--version") {
    std::cout << "sinkref " SINKREF_VERSION ", arithmetic " << arithmetic_version << '\n';
    return 0;
  }
  const std::unique_ptr<Command> command =
      cli::parse_command(find_command(name), commands, arguments);
  if (!command) return 0;  // the help
  command->program = program;
  require_fma();
  set_thread_count(command->threads);
  const int code = command->run();
  require_written();
  // At the end, so that an error stays one line.
  if (!command->model_given && command->needs_model())
    cli::say("note: without --model this was the tiny model that comes along, whose weights are "
             "random: " + command->model);
  return code;
}

/// A closed stream's number would go to the next file that is opened, and what is printed into it.
void open_standard_streams() {
  for (const int fd : {0, 1, 2})
    if (::fcntl(fd, F_GETFD) == -1 && errno == EBADF && ::open("/dev/null", O_RDWR) != fd) ::_exit(2);
}

}  // namespace

int main(int argc, char** argv) {
  open_standard_streams();
  std::signal(SIGBUS, file_changed);
  std::signal(SIGXFSZ, SIG_IGN);  // a size limit is then an error of write(), which cleans up
  // All that end a program and are no fault of its own.
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE, SIGALRM, SIGUSR1, SIGUSR2, SIGXCPU,
                           SIGVTALRM, SIGPROF, SIGPOLL, SIGPWR, SIGSTKFLT, SIGABRT})
    if (std::signal(signal, interrupted) == SIG_IGN) std::signal(signal, SIG_IGN);  // nohup
  try {
    const int code = run(argc > 0 ? argv[0] : "sinkref", {argv + std::min(argc, 1), argv + argc});
    require_written();
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
