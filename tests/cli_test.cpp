// The program as its users meet it: arguments in, exit code, stdout, stderr and files out.

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <catch2/catch.hpp>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <regex>
#include <set>
#include <sstream>

#include "sinkref/trace.h"
#include "temp_dir.h"

using namespace sinkref;
namespace fs = std::filesystem;

namespace {

using Arguments = std::vector<std::string>;

const fs::path outputs = SINKREF_SOURCE_DIR "/reference_outputs";

std::string read_all(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  std::ostringstream text;
  text << in.rdbuf();
  return std::move(text).str();
}

void write_all(const fs::path& file, const std::string& text) {
  std::ofstream(file, std::ios::binary) << text;
}

struct Outcome {
  int code;  ///< -1 if a signal ended it
  std::string out, err;
};

struct Conditions {
  std::string stdout_to;  ///< a file to write stdout to; empty: captured
  rlim_t largest_file = RLIM_INFINITY;
  std::string stdin_from = "/dev/null";
  std::vector<int> closed{};  ///< streams that the program does not get
};

/// The program begun in the background.
pid_t start(Arguments arguments, const std::string& out, const std::string& err,
            const Conditions& conditions) {
  arguments.insert(arguments.begin(), SINKREF_PROGRAM);
  std::vector<char*> argv;
  for (std::string& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    const int in_fd = ::open(conditions.stdin_from.c_str(), O_RDONLY);
    const int out_fd = ::open(out.c_str(), O_WRONLY | O_CREAT, 0600);
    const int err_fd = ::open(err.c_str(), O_WRONLY | O_CREAT, 0600);
    const rlimit size = {conditions.largest_file, conditions.largest_file};
    if (in_fd < 0 || out_fd < 0 || err_fd < 0 || ::setrlimit(RLIMIT_FSIZE, &size) != 0) ::_exit(99);
    ::dup2(in_fd, 0);
    ::dup2(out_fd, 1);
    ::dup2(err_fd, 2);
    for (const int fd : {in_fd, out_fd, err_fd})
      if (fd > 2) ::close(fd);
    for (const int fd : conditions.closed) ::close(fd);
    // What the caller ignores (nohup), the program ignores as well.
    for (const int signal : {SIGINT, SIGTERM, SIGHUP}) ::signal(signal, SIG_DFL);
    ::alarm(20);
    ::execv(argv[0], argv.data());
    ::_exit(99);
  }
  return child;
}

Outcome run(Arguments arguments, const Conditions& conditions = {}) {
  const TempDir captured;
  const std::string out = conditions.stdout_to.empty() ? captured / "out" : conditions.stdout_to;
  const std::string err = captured / "err";
  const pid_t child = start(std::move(arguments), out, err, conditions);
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  const std::string written = conditions.stdout_to.empty() ? read_all(out) : "";
  return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, written, read_all(err)};
}

std::string joined(const Arguments& arguments) {
  std::string text;
  for (const std::string& a : arguments) text += a.substr(0, 80) + " ";
  return text;
}

/// Exit code 2 and one line that names the thing.
void refused(const Arguments& arguments, const std::string& named,
             const Conditions& conditions = {}) {
  const Outcome outcome = run(arguments, conditions);
  INFO(joined(arguments) << "\nstdout: " << outcome.out << "\nstderr: " << outcome.err);
  CHECK(outcome.code == 2);
  CHECK(outcome.out.empty());
  CHECK(outcome.err.starts_with("sinkref: "));
  CHECK(std::count(outcome.err.begin(), outcome.err.end(), '\n') == 1);
  CHECK(outcome.err.ends_with('\n'));
  CHECK(outcome.err.find(named) != std::string::npos);
  for (const char* character : {"\x1b", "\r", "\t"})
    CHECK(outcome.err.find(character) == std::string::npos);
}

std::string done(const Arguments& arguments) {
  const Outcome outcome = run(arguments);
  INFO(joined(arguments) << "\nstderr: " << outcome.err);
  REQUIRE(outcome.code == 0);
  return outcome.out;
}

std::string list(const std::vector<double>& ids) {
  std::string text;
  for (double id : ids) text += (text.empty() ? "" : ",") + std::to_string(static_cast<int>(id));
  return text;
}

/// Every command with its options, as the program lists them.
const nlohmann::ordered_json& all_commands() {
  static const auto all = nlohmann::ordered_json::parse(done({"help", "--json"}));
  return all;
}

/// The same command with some options more.
Arguments with(Arguments arguments, const Arguments& more) {
  arguments.insert(arguments.end(), more.begin(), more.end());
  return arguments;
}

}  // namespace

TEST_CASE("cli: without arguments the commands are printed and the exit code is 2", "[cli]") {
  const Outcome outcome = run({});
  CHECK(outcome.code == 2);
  CHECK(all_commands().size() == 14);
  for (const auto& [name, command] : all_commands().items())
    CHECK(outcome.out.find("\n  " + name + " ") != std::string::npos);
  for (const char* help : {"--help", "-h", "help"}) CHECK(done({help}) == outcome.out);
}

TEST_CASE("cli: the help of every command lists its options, and no others", "[cli]") {
  for (const auto& [name, command] : all_commands().items()) {
    const std::string help = done({name, "--help"});
    INFO(help);
    CHECK(done({name, "-h"}) == help);
    CHECK(done({"help", name}) == help);
    CHECK(help.find(command.at("summary").get<std::string>()) != std::string::npos);
    CHECK((help.find("blocks.0.attn.hook_rot_q") != std::string::npos) ==
          command.at("options").contains("hooks"));
    Arguments listed, expected;
    std::istringstream lines(help);
    for (std::string line; std::getline(lines, line);)
      if (line.starts_with("  --")) listed.push_back(line.substr(4, line.find(' ', 4) - 4));
    for (const auto& [option, row] : command.at("options").items()) expected.push_back(option);
    CHECK(listed == expected);
    for (const char* common : {"json", "model", "threads"})
      CHECK(std::count(listed.begin(), listed.end(), common) == 1);
  }
}

TEST_CASE("cli: every command's example is made of its own options", "[cli]") {
  for (const auto& [name, command] : all_commands().items()) {
    std::istringstream example(command.at("example").get<std::string>());
    std::string word;
    example >> word;
    CHECK(word == "sinkref");
    example >> word;
    CHECK(word == name);
    while (example >> word)
      if (word.starts_with("--")) {
        INFO(name << " " << word);
        CHECK(command.at("options").contains(word.substr(2)));
      }
  }
}

// An option that does not exist ends the reading of those before it: nothing is run.
TEST_CASE("cli: every option takes its default given explicitly, and no malformed value", "[cli]") {
  const Arguments end = {"--no-such"};
  size_t defaults = 0, refusals = 0;
  for (const auto& [name, command] : all_commands().items()) {
    const std::string plain = run(with({name}, end)).err;
    for (const auto& [option, row] : command.at("options").items()) {
      const std::string argument = row.at("argument"), fallback = row.at("default");
      const std::string dashed = "--" + option;
      const auto taken = [&](const Arguments& given) {
        const Outcome outcome = run(with(with({name}, given), end));
        INFO(name << " " << joined(given));
        CHECK(outcome.code == 2);
        CHECK(outcome.err == plain);
      };
      if (argument.empty()) {
        refused({name, dashed + "=yes"}, dashed);
        refused({name, dashed, dashed}, dashed + " is given twice");
        taken({dashed});
        continue;
      }
      refused({name, dashed}, dashed + ": expected " + argument);
      refused({name, dashed, "--json"}, "found --json");
      const bool limited = argument == "N" || !row.at("choices").empty();
      if (!row.at("several") && !limited) refused({name, dashed, "1", dashed + "=1"}, dashed);
      if (limited)
        for (const char* bad : {"", "x", "-1", "99999999999"}) {
          refused({name, dashed, bad}, dashed + " \"" + bad + "\": expected");
          ++refusals;
        }
      for (const std::string value : row.at("choices")) taken({dashed, value});
      if (fallback.empty()) continue;
      taken({dashed, fallback});
      taken({dashed + "=" + fallback});
      ++defaults;
    }
  }
  CHECK(defaults > 40);
  CHECK(refusals > 100);
}

TEST_CASE("cli: the member that an option fills is read somewhere", "[cli]") {
  std::string sources;
  for (const fs::directory_entry& file : fs::directory_iterator(SINKREF_SOURCE_DIR "/src/cli"))
    if (file.path().extension() == ".cpp") sources += read_all(file.path());
  // A row: {"name", kind(["ARGUMENT", ]member …
  const std::string kinds = R"((?:noted\()?(?:texts?|place|single_words|number|flag|choice(?:<\w+>)?))";
  const std::regex row(R"re(\{"([a-z-]+)",\s*)re" + kinds + R"re(\((?:"[^"]*", |argument, )?(\w+))re");
  std::map<std::string, std::string> member_of;
  for (std::sregex_iterator match(sources.begin(), sources.end(), row), end; match != end; ++match)
    member_of[(*match)[1]] = (*match)[2];
  for (const char* common : {"model", "json", "threads"}) member_of[common] = common;
  for (const auto& [name, command] : all_commands().items())
    for (const auto& [option, details] : command.at("options").items()) {
      INFO(name << " --" << option);
      REQUIRE(member_of.contains(option));
      const std::regex use("(options|o|command)(\\.|->)" + member_of[option] + "\\b");
      CHECK(std::regex_search(sources, use));
    }
}

TEST_CASE("cli: an unknown, foreign, shortened or valueless argument is named", "[cli]") {
  refused({"nope"}, "nope");
  refused({"a\nb"}, "a");
  refused({"trace", "--nope"}, "--nope");
  refused({"trace", "--no\npe"}, "--no?pe");
  refused({"info", "--tokens", "1"}, "--tokens");
  refused({"trace", "--token", "1"}, "--token");
  refused({"trace", "--model"}, "--model");
  refused({"info", "stray"}, "positional");
  refused({"generate", "--tokens", "1", "--tokens", "2"}, "--tokens is given twice");
  refused({"generate", "-x"}, "-x");
  refused({"info", "--json=yes"}, "--json is a switch");
  refused({"--model", "m", "info"}, "the command comes first");
}

TEST_CASE("cli: what was meant is named: commands, options, hooks", "[cli]") {
  refused({"tarce"}, "did you mean trace?");
  refused({"tokenise"}, "did you mean tokenize?");
  refused({"first"}, "did you mean first-layer?");
  refused({"trace", "--hook", "logits"}, "did you mean --hooks?");
  refused({"generate", "--max-tokens", "3"}, "did you mean --max-new-tokens?");
  refused({"generate", "--promt", "a"}, "did you mean --prompt?");
  refused({"info", "--hooks", "logits"}, "belongs to trace");
  const Outcome far = run({"trace", "--zzzz"});
  CHECK(far.err.find("did you mean") == std::string::npos);
  const TempDir folder;
  for (const auto& [given, meant] : std::vector<std::pair<std::string, std::string>>{
           {"resid_post", "blocks.*.hook_resid_post"},
           {"hook_resid_pots", "blocks.*.hook_resid_post"},
           {"pattern", "blocks.*.attn.hook_pattern"},
           {"attn.hook_rotq", "blocks.*.attn.hook_rot_q"},
           {"blocks.1.resid_mid", "blocks.1.hook_resid_mid"},
           {"embed", "hook_embed"},
           {"logit", "logits"},
           {"ln_final.scale", "ln_final.hook_scale"},
           {"blocks.1.hook_z", "blocks.1.attn.hook_z"},  // without its middle component
           {"blocks.2.hook_q", "blocks.2.attn.hook_q"},
           {"blocks.1.hook_rot_k", "blocks.1.attn.hook_rot_k"},
           {"blocks.1.hook_patern", "blocks.1.attn.hook_pattern"},
           {"blocks.1.hook_post", "blocks.1.mlp.hook_post"},
           {"blocks.1.hook_pre_linear", "blocks.1.mlp.hook_pre_linear"},
           {"blocks.1.hook_scale", "blocks.1.ln1.hook_scale"}})
    refused({"trace", "--tokens", "1", "--out", folder / "out", "--hooks", given},
            "the closest is \"" + meant + "\"");
}

TEST_CASE("cli: patch-sweep and lens name what does not fit", "[cli]") {
  const Arguments sweep = {"patch-sweep", "--clean", "Hello", "--corrupted", "Jello"};
  const Arguments norm = with(sweep, {"--metric", "norm"});
  refused(sweep, "has no --answer");
  refused(with(sweep, {"--answer", "Hello", "--wrong-token", "1"}), "is 4 tokens, expected one");
  refused(with(sweep, {"--answer-token", "512", "--wrong-token", "1"}), "no token 512");
  refused(with(sweep, {"--answer-token", "3", "--wrong-token", "1", "--observed", "hook_embed"}), "expected logits");
  refused(with(norm, {"--answer-token", "3"}), "takes no --answer");
  refused(with(norm, {"--clean-tokens", "1"}), "--clean: found --clean-tokens too");
  refused(with(norm, {"--hook", "resid_pots"}), "the closest is \"hook_resid_post\"");
  refused(with(norm, {"--hook", "scale"}), "may be \"ln1.hook_scale\" or \"ln2.hook_scale\"");
  refused(with(norm, {"--hook", "pattern"}), "neither scores nor pattern");
  refused(with(norm, {"--by-head"}), "has no heads");
  refused(with(norm, {"--layers", "0,4"}), "no layer \"4\"");
  refused(with(norm, {"--positions", "0,-5"}), "comes twice");
  refused(with(norm, {"--observed-position", "all"}), "expected one");
  refused({"patch-sweep", "--clean", "Hello", "--metric", "norm"}, "--corrupted: is missing");
  refused({"patch-sweep", "--clean", "Hello", "--corrupted", "Jellos", "--metric", "norm"},
          "is 5 tokens and --corrupted 6, expected as many");
  refused({"lens", "--tokens", "1,2", "--positions", "2"}, "no position \"2\"");
  refused({"lens", "--tokens", "1,2", "--answer-token", "512"}, "no token 512");
  refused({"lens", "--tokens", "1,2", "--top", "0"}, "--top");
}

TEST_CASE("cli: a text that lost its quotes is answered with a hint", "[cli]") {
  refused({"generate", "--prompt", "Hello", "world"}, "--prompt 'Hello world");
  refused({"generate", "Hello"}, "--prompt 'TEXT'");
  refused({"trace", "--hooks", "a", "b"}, "wants quotes");
  refused({"generate", "--tokens", "1,", "2"}, "without blanks");
  refused({"sink", "--word", "two words"}, "expected one word");
  refused({"report", "--word", "two\twords", "--out", "x"}, "--word");
}

TEST_CASE("cli: a value may stand behind its option, begin with a dash, be empty", "[cli]") {
  CHECK(done({"generate", "--tokens=1,2", "--max-new-tokens=2"}) ==
        done({"generate", "--tokens", "1,2", "--max-new-tokens", "2"}));
  CHECK(done({"tokenize", "--prompt=--json", "--json"}).find("\"text\": \"--json\"") !=
        std::string::npos);
  CHECK(done({"tokenize", "--prompt", "-5 degrees", "--json"}).find("-5 degrees") !=
        std::string::npos);
  CHECK(done({"tokenize", "--prompt", "-- and on", "--json"}).find("-- and on") !=
        std::string::npos);
  CHECK(done({"tokenize", "--prompt=a=b", "--json"}).find("a=b") != std::string::npos);
}

TEST_CASE("cli: without --model it is said which model ran, and only if one did", "[cli]") {
  const Outcome tiny = run({"info"});
  CHECK(tiny.err.find("tiny") != std::string::npos);
  CHECK(std::count(tiny.err.begin(), tiny.err.end(), '\n') == 1);
  CHECK(run({"info", "--model", outputs / "tiny_llama3"}).err.empty());
  const TempDir folder;
  done({"trace", "--tokens", "1", "--out", folder / "t"});
  CHECK(run({"verify", folder / "t", folder / "t"}).err.empty());
}

TEST_CASE("cli: text and ids may come through a pipe", "[cli]") {
  const TempDir folder;
  Conditions text, ids, data;
  text.stdin_from = folder.write("text", "hello");
  ids.stdin_from = folder.write("ids", "[1,2]");
  data.stdin_from = folder.write("data", "{\"task\":\"t\",\"id\":\"1\",\"context\":\"ab\",\"choices\":"
                                        "[\" c\",\" d\"],\"gold\":0}\n");
  const std::string prompt = done({"tokenize", "--prompt", "hello", "--json"});
  const std::string continued = done({"generate", "--tokens", "1,2", "--json"});
  const std::string scored =
      nlohmann::json::parse(done({"eval", "--data", data.stdin_from, "--json"}))["tasks"].dump();
  for (const char* name : {"-", "/dev/stdin", "/dev/fd/0"}) {
    CHECK(run({"tokenize", "--prompt-file", name, "--json"}, text).out == prompt);
    CHECK(run({"generate", "--tokens-file", name, "--json"}, ids).out == continued);
    const Outcome outcome = run({"eval", "--data", name, "--json"}, data);
    INFO(outcome.err);
    REQUIRE(outcome.code == 0);
    CHECK(nlohmann::json::parse(outcome.out)["tasks"].dump() == scored);
  }
  Conditions closed;
  closed.closed = {0};
  refused({"tokenize", "--prompt-file", "-"}, "empty", closed);
}

TEST_CASE("cli: a stream that is closed at the start takes nothing from a file", "[cli]") {
  const TempDir folder;
  done({"trace", "--tokens", "1,5", "--out", folder / "good"});
  for (const std::vector<int>& closed :
       std::vector<std::vector<int>>{{0}, {1}, {2}, {0, 1}, {1, 2}, {0, 1, 2}}) {
    Conditions conditions;
    conditions.closed = closed;
    const Arguments trace = {"trace", "--tokens", "1,5", "--json", "--force", "--out", folder / "out"};
    CHECK(run(trace, conditions).code == 0);
    CHECK((read_all(folder / "out") == read_all(folder / "good")));
  }
}

TEST_CASE("cli: a name that is no UTF-8 comes through JSON", "[cli]") {
  const TempDir folder;
  const std::string model = folder / "mod\xe8le";
  fs::copy(outputs / "tiny_llama3", model);
  const std::string data = folder.write(
      "d\xff.jsonl", "{\"task\":\"t\",\"id\":\"1\",\"context\":\"ab\",\"choices\":[\" c\",\" d\"],\"gold\":0}\n");
  const auto json = [&](Arguments arguments) {
    return nlohmann::json::parse(done(with(arguments, {"--model", model, "--json"})));
  };
  CHECK(json({"sink", "--repeats", "4"}).at("model") == "mod\uFFFDle");
  CHECK(json({"eval", "--data", data, "--samples", folder / "s.jsonl"})["run"]["model"] ==
        "mod\uFFFDle");
  json({"trace", "--tokens", "1", "--out", folder / "t\xfe"});
  json({"verify", "--candidate", folder / "t\xfe"});
  json({"verify", "--golden", model + "/golden_one.safetensors"});
  json({"bench", "--prefill", "2", "--runs", "1"});
  json({"report", "--repeats", "4", "--out", folder / "report"});
}

TEST_CASE("cli: ids beyond the tokenizer have no text, and stop no command", "[cli]") {
  const TempDir folder;
  nlohmann::json config = nlohmann::json::parse(read_all(outputs / "tiny_llama3" / "config.json"));
  const int last = config.at("vocab_size").get<int>() - 1;
  const nlohmann::json generated = nlohmann::json::parse(
      done({"generate", "--tokens", std::to_string(last), "--max-new-tokens", "20", "--json"}));
  CHECK(generated.at("tokens").size() > 0);
  done({"report", "--repeats", "4", "--out", folder / "report"});
}

TEST_CASE("cli: a number or a choice outside its range is named with what was expected", "[cli]") {
  for (const char* bad : {"-1", "1.5", "", "x", "1e3", "1025", "99999999999999999999"})
    refused({"generate", "--tokens", "1", "--threads", bad}, "--threads");
  for (const char* bad : {"0", "-1", "1.5", "9999999999"})
    refused({"generate", "--tokens", "1", "--chunk", bad}, "--chunk");
  refused({"generate", "--tokens", "1", "--max-new-tokens", "0"}, "--max-new-tokens");
  refused({"generate", "--tokens", "1", "--max-new-tokens", "999999999"}, "--max-new-tokens");
  refused({"sink", "--tokens", "1", "--repeats", "512"}, "--repeats");
  refused({"generate", "--tokens", "1", "--kernel", "sse9"}, "sse9");
  refused({"sink", "--tokens", "1", "--kernel", "sse9"}, "sse9");
  refused({"generate", "--tokens", "1", "--precision", "fp16"}, "fp16");
  refused({"generate", "--tokens", "1", "--softmax", "two"}, "two");
  refused({"generate", "--tokens", "1", "--bos", "maybe"}, "maybe");
}

TEST_CASE("cli: a model that is absent or none is named", "[cli]") {
  const TempDir folder;
  fs::create_directory(folder / "empty");
  REQUIRE(::mkfifo((folder / "fifo").c_str(), 0600) == 0);
  folder.write("text", "no model\n");
  folder.write("nothing", "");
  for (const char* name : {"absent", "empty", "fifo", "text", "nothing"})
    refused({"info", "--model", folder / name}, folder / name);
  refused({"info", "--model", folder / "two\nlines"}, "two?lines");
  refused({"info", "--model", ""}, "--model");
}

TEST_CASE("cli: a malformed list of tokens is refused and leaves no file", "[cli]") {
  const TempDir folder;
  for (const char* bad : {"", "12x", "-1", "1.0", "0x10", "1,,2", ",", " 1", "5x0", "5x-1", "x5",
                          "5x99999999", "2147483648", "99999999999999999999"})
    for (const char* command : {"trace", "sink"}) {
      Arguments arguments = {command, "--tokens", bad};
      if (command == std::string("trace"))
        arguments.insert(arguments.end(), {"--out", folder / "out"});
      refused(arguments, "--tokens");
    }
  for (const char* command : {"generate", "sink"}) {
    refused({command, "--tokens", "1,512"}, "512");
    refused({command, "--tokens", "5x513"}, "513");
  }
  refused({"trace", "--out", folder / "out", "--tokens", "1,512"}, "512");
  refused({"trace", "--out", folder / "out", "--tokens", "5x513"}, "513");
  CHECK(folder.entries() == 0);
  std::string long_runs = "5x1000000";
  for (size_t i = 0; i < 10'000; ++i) long_runs += ",5x1000000";  // 40 GB if it were believed
  refused({"generate", "--tokens", long_runs}, "at most 10000000");
}

TEST_CASE("cli: a bad tokens file is named and leaves no file", "[cli]") {
  const TempDir folder;
  const std::string deep(100'000, '[');
  const std::vector<std::pair<std::string, std::string>> files = {
      {"nothing", ""},
      {"blank", " \n"},
      {"text", "1 2 3"},
      {"cut", "[1,2"},
      {"bom", "\xEF\xBB\xBF[1]"},
      {"nul", std::string("[1]\0", 4)},
      {"utf8", "[1,\"\xff\"]"},
      {"string", "[\"1\"]"},
      {"object", "{\"tokens\":[1]}"},
      {"null", "[null]"},
      {"true", "[true]"},
      {"negative", "[-1]"},
      {"fraction", "[1.0]"},
      {"int32", "[2147483648]"},
      {"int64", "[99999999999999999999]"},
      {"nested", "[[[1]]]"},
      {"mixed", "[1,[2]]"},
      {"mixed_too", "[[1],2]"},
      {"empty_list", "[]"},
      {"empty_inner", "[[1],[]]"},
      {"deep", deep},
      {"deep_closed", deep + std::string(deep.size(), ']')},
  };
  for (const auto& [name, text] : files) folder.write(name, text);
  fs::create_directory(folder / "folder");
  REQUIRE(::mkfifo((folder / "fifo").c_str(), 0600) == 0);
  const size_t entries = folder.entries();
  Arguments names = {"absent", "folder", "fifo"};
  for (const auto& [name, text] : files) names.push_back(name);
  for (const std::string& name : names)
    refused({"trace", "--tokens-file", folder / name, "--out", folder / "out"}, folder / name);
  CHECK(folder.entries() == entries);
  refused({"generate", "--tokens-file", folder.write("large", "[[1],[1,512]]")}, "512");
  refused({"sink", "--tokens-file", folder.write("batch", "[[1],[2]]")}, folder / "batch");
}

TEST_CASE("cli: a tokens file may end its lines with CR and LF", "[cli]") {
  const TempDir folder;
  const std::string file = folder.write("tokens", "[1,\r\n 2]\r\n");
  CHECK(done({"generate", "--tokens-file", file, "--max-new-tokens", "2"}) ==
        done({"generate", "--tokens", "1,2", "--max-new-tokens", "2"}));
}

TEST_CASE("cli: exactly one input is expected, and not an empty one", "[cli]") {
  refused({"generate"}, "--tokens");
  refused({"generate", "--tokens", "1", "--prompt", "a"}, "found 2");
  refused({"generate", "--prompt", ""}, "--prompt");
  const TempDir folder;
  refused({"generate", "--prompt-file", folder / "absent"}, folder / "absent");
  refused({"generate", "--prompt-file", folder.write("nothing", "")}, folder / "nothing");
}

TEST_CASE("cli: a hook that does not exist is answered with the closest", "[cli]") {
  const TempDir folder;
  const Arguments start = {"trace", "--tokens", "1", "--out", folder / "out", "--hooks"};
  const auto hooks = [&](const char* globs) {
    Arguments arguments = start;
    arguments.push_back(globs);
    return arguments;
  };
  refused(hooks("blocks.0.hook_resid_pots"), "\"blocks.0.hook_resid_post\"");
  refused(hooks("logits,"), "\"\"");
  refused(hooks("blocks.4.*"), "layers 0 to 3");
  refused(hooks("*?*?*?*?*?*?*?*?*?*?*?*?*?*?*?*?*?*q?"), "--hooks");  // and in no time
  CHECK(folder.entries() == 0);
}

TEST_CASE("cli: malformed neurons and neurons that do not exist are named", "[cli]") {
  const TempDir folder;
  for (const char* option : {"--patch", "--ablate"})
    for (const char* bad : {"", "x", "1", "1:", ":1", "0:1,", "0:1;", "0:-1", "0:1:2", "4:0",
                            "0:120", "99999999999999999999:1"})
      refused({"trace", "--tokens", "1,2", "--out", folder / "out", option, bad}, option);
  CHECK(folder.entries() == 0);
}

TEST_CASE("cli: --patch auto takes any prompt of a model without tokenizer, and a site is checked",
          "[cli]") {
  const TempDir folder;
  folder.write("batch", "[[1,2,3],[5],[7,7,7,7]]");
  const std::string model = SINKREF_SOURCE_DIR "/reference_outputs/tiny_llama1";
  done({"generate", "--model", model, "--tokens-file", folder / "batch", "--patch", "auto",
        "--max-new-tokens", "2", "--json"});
  refused({"generate", "--tokens", "1,2", "--patch", "0:1", "--patch-site", "down"}, "up, gate, both, post");
  refused({"trace", "--tokens", "1,2", "--patch", "0:1", "--patch-site", "", "--out", folder / "out"},
          "--patch-site");
  CHECK(folder.entries() == 1);
}

TEST_CASE("cli: an output that cannot be made is named and nothing is left", "[cli]") {
  const TempDir folder;
  fs::create_directory(folder / "folder");
  REQUIRE(::mkfifo((folder / "fifo").c_str(), 0600) == 0);
  folder.write("file", "old");
  const auto trace_to = [](const std::string& out) -> Arguments {
    return {"trace", "--tokens", "1,2,3", "--out", out};
  };
  refused({"trace", "--tokens", "1"}, "--out");
  refused(trace_to(""), "--out");
  for (const std::string& name :
       {folder / "absent/out", folder / "folder", folder / "file/out", folder / "fifo",
        folder / "file", folder / std::string(300, 'a'), std::string("/proc/sinkref.out")})
    refused(trace_to(name), name);
  CHECK(read_all(folder / "file") == "old");

  Arguments forced = trace_to(folder / "fifo");
  forced.push_back("--force");
  refused(forced, folder / "fifo");
  CHECK(fs::is_fifo(folder / "fifo"));
  CHECK(folder.entries() == 3);
  CHECK(fs::is_empty(folder / "folder"));

  forced[4] = folder / "file";
  done(forced);
  CHECK(TraceFile::open(folder / "file").has("logits"));
  CHECK(folder.entries() == 3);
}

TEST_CASE("cli: a link and standard output are no places to write to", "[cli]") {
  const TempDir folder;
  folder.write("target", "old");
  fs::create_symlink("target", folder / "link");
  fs::create_symlink("nowhere", folder / "dangling");
  for (const std::string& name : {folder / "link", folder / "dangling", std::string("/dev/stdout"), std::string("-")})
    refused({"trace", "--tokens", "1,2", "--force", "--out", name}, name);
  CHECK(fs::is_symlink(folder / "link"));
  CHECK(read_all(folder / "target") == "old");
  CHECK(folder.entries() == 3);
}

TEST_CASE("cli: verify refuses what the chosen comparison would pass over", "[cli]") {
  const TempDir folder;
  const std::string model = (outputs / "tiny_llama3").string(), trace = folder / "t", golden = model + "/golden_prompt.safetensors";
  done({"trace", "--model", model, "--tokens", "1,5", "--out", trace});
  const std::vector<std::pair<Arguments, std::string>> passed_over = {
      {{"--self", "--candidate", folder / "absent"}, "--candidate"}, {{"--self", "--golden", golden}, "--golden"},
      {{"--self", trace, trace}, "--traces"}, {{"--self", "--html", folder / "h"}, "--html"}, {{"--self", "--exact"}, "--exact"},
      {{"--golden", golden, "--patch", "1:3"}, "--patch"}, {{"--golden", golden, "--tokens", "1,2"}, "--tokens"},
      {{"--golden", golden, "--softmax", "one"}, "--softmax"}, {{"--golden", golden, "--html", folder / "h"}, "--html"},
      {{trace, trace, "--ablate", "1:3"}, "--ablate"}, {{trace, trace, "--require", "logits"}, "--require"},
      {{trace, trace, "--perturb", "0.mlp.up_proj[1]"}, "--perturb"},
      {{"--candidate", trace, "--exact", "--require", "logits"}, "--require"}};
  for (const auto& [given, named] : passed_over) {
    Arguments arguments = {"verify"};
    if (given[0].starts_with("--")) arguments.insert(arguments.end(), {"--model", model});
    arguments.insert(arguments.end(), given.begin(), given.end());
    refused(arguments, named);
  }
  CHECK(folder.entries() == 1);
  done({"verify", trace, trace});
  done({"verify", "--model", model, "--candidate", trace, "--exact"});
}

TEST_CASE("cli: a full disk is an error that leaves no file", "[cli]") {
  const TempDir folder;
  const std::string out = folder / "out";
  refused({"trace", "--tokens", "1,2,3", "--out", out}, out, {"", 4096});
  CHECK(folder.entries() == 0);
  folder.write("out", "old");
  refused({"trace", "--tokens", "1,2,3", "--out", out, "--force"}, out, {"", 4096});
  CHECK(read_all(out) == "old");
  CHECK(folder.entries() == 1);
}

TEST_CASE("cli: an interrupted run leaves no file and ends by the signal", "[cli]") {
  const TempDir folder;
  std::string long_batch = "[[1";
  for (size_t i = 0; i < 511; ++i) long_batch += ",1";
  long_batch += "]";
  std::string batch = long_batch;
  for (size_t i = 0; i < 200; ++i) batch += "," + long_batch.substr(1);  // a minute of work
  folder.write("batch", batch + "]");
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
    const pid_t child = start({"trace", "--tokens-file", folder / "batch", "--kernel", "spec",
                               "--hooks", "ln_final.hook_scale", "--out", folder / "out"},
                              "/dev/null", "/dev/null", {});
    const auto has_begun = [&] { return folder.entries() == 2; };
    for (size_t tries = 0; tries < 2000 && !has_begun(); ++tries) ::usleep(5000);
    CHECK(has_begun());
    ::kill(child, signal);
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    CHECK(WIFSIGNALED(status));
    CHECK(WTERMSIG(status) == signal);
    CHECK(folder.entries() == 1);
  }
}

TEST_CASE("cli: output that standard output does not take is an error", "[cli]") {
  REQUIRE(fs::is_character_file("/dev/full"));
  for (const Arguments& arguments :
       {Arguments{},
        {"--help"},
        {"--version"},
        {"info"},
        {"info", "--json"},
        {"trace", "--help"},
        {"generate", "--tokens", "1", "--max-new-tokens", "2", "--json"}})
    refused(arguments, "standard output", {"/dev/full", RLIM_INFINITY});
  for (const Arguments& arguments :
       {Arguments{"generate", "--tokens", "1", "--max-new-tokens", "2"},
        {"sink", "--tokens", "1,2", "--repeats", "2"}})
    CHECK(run(arguments, {"/dev/full", RLIM_INFINITY}).code == 2);
}

TEST_CASE("cli: report replaces no report and makes no folder for bad input", "[cli]") {
  const TempDir folder;
  const Arguments start = {"report", "--tokens", "1,2", "--repeats", "4", "--out"};
  const auto report = [&](const std::string& out, const Arguments& more = {}) {
    Arguments arguments = start;
    arguments.push_back(out);
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
  };
  refused({"report", "--tokens", "1"}, "--out");
  refused(report(""), "--out");
  refused(report(folder / "new", {"--model", folder / "absent"}), folder / "absent");
  refused(report(folder / "new", {"--golden", folder / "absent"}), folder / "absent");
  refused(report(folder / "new", {"--kernel", "sse9"}), "sse9");
  refused(report(folder / "new", {"--golden", outputs / "tiny_llama1/golden_prompt.safetensors"}),
          "give the golden that belongs to the model");
  CHECK(folder.entries() == 0);
  folder.write("report.json", "old");
  refused(report(folder.path()), folder / "report.json");
  refused(report(folder / "report.json"), folder / "report.json");
  CHECK(read_all(folder / "report.json") == "old");
  CHECK(folder.entries() == 1);
  const fs::path full = folder / "full";
  // A limit that report.json and report.html pass, not the smaller figures.
  const Outcome stopped = run(report(full), {"", 30'000});
  INFO(stopped.err);
  CHECK(stopped.code == 2);
  CHECK(stopped.err.find("sinkref: " + full.string()) != std::string::npos);
  CHECK(fs::is_empty(full / "figures"));
  CHECK(std::distance(fs::directory_iterator(full), {}) == 2);  // what was measured is kept
  CHECK(fs::is_directory(full / "unfinished"));
  write_all(full / "figures" / "mine.svg", "mine");
  refused(report(full), "figures");
  fs::remove(full / "figures" / "mine.svg");
  refused(report(full, {"--bos", "off"}), "another request (");
  const Outcome gone_on = run(report(full));
  CHECK(gone_on.code == 0);
  CHECK(gone_on.err.find("going on with an unfinished report") != std::string::npos);
  CHECK_FALSE(fs::exists(full / "unfinished"));
  fs::remove_all(full);
  const std::string printed = done(report(folder.path(), {"--force", "--json"}));
  CHECK(nlohmann::json::parse(printed) == nlohmann::json::parse(read_all(folder / "report.json")));
  CHECK(folder.entries() == 4);  // and report.html, report.safetensors, figures
  refused(report(folder / "new", {"--paper", "gpt-2"}), "llama-2-7b");
  CHECK(folder.entries() == 4);
}

TEST_CASE("cli: a report has the same bytes for every thread count, chunk and kernel", "[cli]") {
  const std::vector<Arguments> ways = {{"--threads", "1"},
                                       {"--threads", "3", "--chunk", "7"},
                                       {"--kernel", "spec", "--threads", "2"}};
  std::vector<TempDir> folders(ways.size());
  for (size_t i = 0; i < ways.size(); ++i) {
    Arguments arguments = {"report", "--model", outputs / "tiny_llama1", "--tokens",
                           "5,17,5x20,9,9,11", "--repeats", "40", "--force", "--out",
                           folders[i].path()};
    arguments.insert(arguments.end(), ways[i].begin(), ways[i].end());
    done(arguments);
  }
  for (const char* name : {"report.json", "report.html", "report.safetensors",
                           "figures/attention_first.svg"}) {
    const std::string first = read_all(folders[0] / name);
    CHECK(first.size() > 1000);
    for (size_t i = 1; i < folders.size(); ++i) CHECK((read_all(folders[i] / name) == first));
  }
}

/// The bytes of every file below a folder.
std::map<std::string, std::string> contents(const fs::path& folder) {
  std::map<std::string, std::string> all;
  for (const fs::directory_entry& entry : fs::recursive_directory_iterator(folder))
    if (entry.is_regular_file()) all[fs::relative(entry.path(), folder).string()] = read_all(entry.path());
  return all;
}

TEST_CASE("cli: a report that is killed at any moment goes on to the same bytes", "[cli]") {
  const TempDir folder;
  const auto report = [&](const std::string& name) -> Arguments {
    return {"report", "--model", outputs / "tiny_llama1", "--tokens", "5,17,5x20,9,9,11", "--repeats", "150",
            "--out", folder / name};
  };
  done(report("whole"));
  const std::map<std::string, std::string> expected = contents(folder / "whole");
  int gone_on = 0;
  for (int i = 0; i < 12; ++i) {
    INFO(i);
    const std::string name = "stopped" + std::to_string(i);
    const fs::path out = folder.path() / name;
    // After so many stages, or a little later, by a signal that can be caught or by one that cannot.
    const pid_t child = start(report(name), folder / "out", folder / "err", {});
    const auto stages = [&] {
      std::error_code error;
      int count = 0;
      for (const fs::directory_entry& entry : fs::directory_iterator(out / "unfinished", error))
        count += entry.path().extension() == ".kept";
      return count;
    };
    int status = 0;
    while (::waitpid(child, &status, WNOHANG) == 0) {
      if (stages() >= i || fs::exists(out / "report.safetensors")) {
        ::usleep(static_cast<useconds_t>(i % 3) * 2000);
        ::kill(child, i % 2 == 0 ? SIGKILL : SIGTERM);
        ::waitpid(child, &status, 0);
        break;
      }
      ::usleep(200);
    }
    if (!fs::exists(out / "report.json")) {
      gone_on += stages() > 0;
      done(report(name));
    }
    CHECK((contents(out) == expected));
  }
  CHECK(gone_on >= 3);  // or nothing was tried
}

TEST_CASE("cli: what a page says to copy runs as it stands", "[cli]") {
  const TempDir folder;
  // A folder's name with all that a shell would act on, and a word with a quote.
  const fs::path model = folder / "it's $(touch run) a model";
  fs::create_directory(model);
  for (const char* file : {"config.json", "model.safetensors"})
    fs::copy_file(outputs / "tiny_llama1" / file, model / file);
  done({"report", "--model", model, "--tokens", "5,17,9,11", "--repeats", "12", "--out", folder / "report"});
  std::string page = read_all(folder / "report/report.html");
  const std::vector<std::pair<std::string, std::string>> entities = {
      {"&quot;", "\""}, {"&lt;", "<"}, {"&gt;", ">"}, {"&amp;", "&"}};
  for (const auto& [entity, character] : entities)
    for (size_t at; (at = page.find(entity)) != std::string::npos;) page.replace(at, entity.size(), character);
  std::set<std::string> commands;
  const std::regex code("<code>([^\n]*?)</code>");
  for (std::sregex_iterator at(page.begin(), page.end(), code), end; at != end; ++at) commands.insert((*at)[1]);
  CHECK(commands.size() >= 6);
  for (const std::string& command : commands) {
    INFO(command);
    CHECK(command.find(SINKREF_PROGRAM) == 0);
    const fs::path here = folder / "here";
    fs::remove_all(here);
    fs::create_directory(here);
    const std::string line = "cd " + here.string() + " && " + command + " >/dev/null 2>err";
    CHECK(std::system(line.c_str()) == 0);
    CHECK_FALSE(fs::exists(here / "run"));
  }
  CHECK_FALSE(fs::exists("run"));
}

/// The first layer of tiny_llama1 with its embedding and head.
std::string one_layer_weights() {
  const TraceFile whole = TraceFile::open(outputs / "tiny_llama1" / "model.safetensors");
  nlohmann::ordered_json header;
  std::string data;
  for (const std::string& name : whole.names()) {
    if (name.find("layers.") != std::string::npos && name.find("layers.0.") == std::string::npos)
      continue;
    const size_t begin = data.size();
    for (double value : whole.values(name)) {
      const float narrow = static_cast<float>(value);
      data.append(reinterpret_cast<const char*>(&narrow), sizeof narrow);
    }
    header[name] = {{"dtype", "F32"},
                    {"shape", whole.shape(name)},
                    {"data_offsets", {begin, data.size()}}};
  }
  const std::string text = header.dump();
  const uint64_t size = text.size();
  return std::string(reinterpret_cast<const char*>(&size), sizeof size) + text + data;
}

TEST_CASE("cli: a report of one layer, of a model without BOS, of a short context", "[cli]") {
  const TempDir folder;
  const auto changed = [&](const std::string& name, const std::string& key,
                           const nlohmann::json& value) {
    const fs::path model = folder.path() / name;
    fs::create_directory(model);
    fs::copy_file(outputs / "tiny_llama1" / "model.safetensors", model / "model.safetensors");
    nlohmann::json config =
        nlohmann::json::parse(read_all(outputs / "tiny_llama1" / "config.json"));
    config[key] = value;
    write_all(model / "config.json", config.dump());
    return model.string();
  };
  const auto report = [&](const std::string& model, const Arguments& more = {}) {
    Arguments arguments = {"report", "--model", model, "--tokens", "5,17,9,11", "--json",
                           "--force", "--out", folder / "report"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return nlohmann::json::parse(done(arguments));
  };
  const std::string single = changed("one", "num_hidden_layers", 1);
  write_all(fs::path(single) / "model.safetensors", one_layer_weights());
  const auto one = report(single, {"--repeats", "9"});
  CHECK(one.at("attention").at("text").size() == 1);
  CHECK(one.at("paper_rule_layer").is_null());
  CHECK(one.at("sink_layers").empty());
  CHECK(report(changed("nobos", "bos_token_id", nullptr), {"--repeats", "9"}).at("lone_token") == 5);
  const auto noted = report(changed("noted", "my_training_note", 3), {"--repeats", "9", "--patch", "1:17"});
  CHECK(noted.at("notes").at(0).get<std::string>().find("my_training_note") != std::string::npos);
  const std::string page = read_all(folder / "report/report.html");
  CHECK(page.find("<div class=\"notes\"") != std::string::npos);
  CHECK(page.find("&quot;my_training_note&quot;") != std::string::npos);
  CHECK(page.find("<p>There is no sink, so there is nothing to prevent. The patch 1:17 moves") != std::string::npos);
  const std::string small = changed("small", "max_position_embeddings", 16);
  CHECK(report(small).at("inputs").at("conditions").at(0).at("repeats") == 15);
  refused({"report", "--model", small, "--tokens", "5,17", "--repeats", "16", "--out", folder / "x"},
          "--repeats 16");
  refused({"report", "--model", small, "--tokens", "5", "--out", folder / "x"}, "at least two");
}

TEST_CASE("cli: --json prints one JSON value with the promised keys", "[cli]") {
  const TempDir folder;
  using nlohmann::json;
  CHECK(json::parse(done({"info", "--json"})).at("layers") == 4);
  const json one =
      json::parse(done({"generate", "--tokens", "1", "--max-new-tokens", "3", "--json"}));
  CHECK(one.at("tokens").size() <= 3);
  CHECK(one.contains("text"));
  const std::string batch = folder.write("batch", "[[1],[2,3]]");
  CHECK(json::parse(done({"generate", "--tokens-file", batch, "--max-new-tokens", "3", "--json"}))
            .size() == 2);
  const json trace =
      json::parse(done({"trace", "--tokens", "1", "--out", folder / "out", "--json"}));
  CHECK(trace.at("bytes") == fs::file_size(folder / "out"));
  const json sink = json::parse(done({"sink", "--tokens", "1,2", "--repeats", "4", "--json"}));
  for (const char* key : {"model", "sink_layers", "repeats"}) CHECK(sink.contains(key));
}

TEST_CASE("cli: a trace has the same bytes for every run, thread count, chunk and kernel",
          "[cli]") {
  const TempDir folder;
  const std::string batch =
      folder.write("batch", "[[1,5,9,77,77,77,77,77,77,77,77,77],[3],[200,31,44,150,7]]");
  std::string expected;
  for (const Arguments& how : {Arguments{},
                               {},
                               {"--threads", "1"},
                               {"--threads", "2"},
                               {"--chunk", "1"},
                               {"--chunk", "7", "--threads", "2"},
                               {"--chunk", "512"},
                               {"--kernel", "spec"},
                               {"--kernel", "auto", "--chunk", "1", "--threads", "1"}}) {
    Arguments arguments = {"trace", "--tokens-file", batch,          "--hooks",
                           "*",     "--out",         folder / "out", "--force"};
    arguments.insert(arguments.end(), how.begin(), how.end());
    done(arguments);
    const std::string bytes = read_all(folder / "out");
    if (expected.empty()) expected = bytes;
    INFO(joined(how));
    CHECK(bytes == expected);
  }
  CHECK(folder.entries() == 2);
}

TEST_CASE("cli: a sequence of a batch has the values that it has alone", "[cli]") {
  const TempDir folder;
  const std::vector<std::string> sequences = {"1,5,9,77,77,77,77,77,77", "3", "200,31,44,150,7"};
  std::string lists;
  for (const std::string& ids : sequences) lists += (lists.empty() ? "[" : ",[") + ids + "]";
  const std::string file = folder.write("batch", "[" + lists + "]");
  done({"trace", "--tokens-file", file, "--hooks", "*", "--out", folder / "all"});
  const TraceFile all = TraceFile::open(folder / "all");
  for (size_t i = 0; i < sequences.size(); ++i) {
    const std::string out = folder / ("alone" + std::to_string(i));
    done({"trace", "--tokens", sequences[i], "--hooks", "*", "--out", out});
    const TraceFile alone = TraceFile::open(out);
    CHECK(alone.names().size() > 80);
    for (const std::string& name : alone.names()) {
      const std::vector<uint64_t> own = alone.shape(name), padded = all.shape(name);
      REQUIRE(own.size() == padded.size());
      const std::vector<double> few = alone.values(name), many = all.values(name);
      size_t same = 0;
      for (size_t from = 0; from < few.size(); ++from) {
        // The same indices in the padded tensor, of which sequence i is one slice.
        size_t rest = from, to = 0, stride = 1;
        for (size_t axis = own.size(); axis-- > 1;) {
          to += rest % own[axis] * stride;
          rest /= own[axis];
          stride *= padded[axis];
        }
        same += few[from] == many[to + i * stride];
      }
      INFO(name << " of sequence " << i);
      CHECK(same == few.size());
    }
  }
}

TEST_CASE("cli: more tokens than the context holds are refused, and the last need not be run", "[cli]") {
  const TempDir folder;
  refused({"trace", "--tokens", "1x510", "--generate", "4", "--out", folder / "t"}, "512");
  refused({"generate", "--tokens", "1x510", "--max-new-tokens", "4"}, "512");
  CHECK(folder.entries() == 0);
  done({"trace", "--tokens", "1x510", "--generate", "3", "--out", folder / "t"});
}

TEST_CASE("cli: generate gives the tokens of the golden runs", "[cli]") {
  for (const char* name : {"tiny_llama1", "tiny_llama2", "tiny_llama3", "tiny_mistral"}) {
    const TraceFile golden = TraceFile::open(outputs / name / "golden_prompt.safetensors");
    const std::vector<double> expected = golden.values("generated");
    const std::string printed =
        done({"generate", "--model", outputs / name, "--tokens", list(golden.values("tokens")),
              "--max-new-tokens", std::to_string(expected.size()), "--json"});
    INFO(name);
    CHECK(nlohmann::json::parse(printed).at("tokens").get<std::vector<double>>() == expected);
  }
}

TEST_CASE("cli: bench prints the promised keys, and refuses what cannot be measured", "[cli]") {
  using nlohmann::json;
  const json model = json::parse(done({"bench", "--prefill", "6", "--decode", "2", "--runs", "1",
                                       "--shapes", "40x64", "--rows", "1,3", "--json"}));
  for (const char* key : {"prefill_tokens_per_s", "decode_tokens_per_s", "peak_rss_bytes"})
    CHECK(model.at(key) > 0);
  CHECK(model.at("threads") > 0);
  CHECK(model.at("kernel") != "auto");
  REQUIRE(model.at("matmul").size() == 2);
  for (const json& product : model.at("matmul")) {
    for (const char* key : {"gflop_per_s", "openblas_gflop_per_s", "weight_gb_per_s"})
      CHECK(product.at(key) > 0);
    // Any order of 64 products: gamma_64 times how much larger the terms are than their sum.
    for (const char* key : {"rms_error", "openblas_rms_error"}) CHECK(product.at(key) < 1e-5);
  }
  const json only = json::parse(done({"bench", "--prefill", "3", "--runs", "1", "--json"}));
  CHECK(only.at("decode_tokens_per_s").is_null());
  CHECK_FALSE(only.contains("matmul"));
  refused({"bench", "--rows", "0"}, "--rows");
  refused({"bench", "--rows", "1,,2"}, "--rows");
  refused({"bench", "--dtype", "F33"}, "F33");
  refused({"bench", "--shapes", "4096"}, "--shapes");
  refused({"bench", "--shapes", "40x40", "--dtype", "Q4_1"}, "Q4_1");
  refused({"bench", "--prefill", "999999"}, "limit");
  refused({"bench", "--kernel", "sse9"}, "sse9");
}
