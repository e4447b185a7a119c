// Finished work is written wherever it can be, replaces nothing it should not, and is of inputs that
// stayed as they were.

#include "base/output_file.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/json_file.h"
#include "base/mapped_file.h"
#include "checkpoint_builder.h"
#include "eval/samples.h"

using namespace sinkref;
namespace fs = std::filesystem;

namespace {

/// These system calls fail from here on, as if the file system did not know them.
void without(const std::vector<long>& calls, int error) {
  std::vector<sock_filter> filter = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr))};
  for (const long call : calls) {
    filter.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<unsigned>(call), 0, 1));
    filter.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | static_cast<unsigned>(error)));
  }
  filter.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
  const sock_fprog program{static_cast<unsigned short>(filter.size()), filter.data()};
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
      ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
    ::_exit(90);
}

const std::vector<long> hard_links = {
#ifdef SYS_link
    SYS_link,
#endif
    SYS_linkat};

/// What f returns in a process of its own, whose stderr goes to a file; 80 for an exception.
template <class F>
int in_child(const fs::path& err, const F& f) {
  const pid_t child = ::fork();
  if (child == 0) {
    if (::freopen(err.c_str(), "w", stderr) == nullptr) ::_exit(91);
    int code = 80;
    try {
      code = f();
    } catch (const std::exception& e) {
      std::fprintf(stderr, "%s\n", e.what());
    }
    std::fflush(stderr);
    ::_exit(code);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

size_t files_in(const fs::path& folder) {
  return static_cast<size_t>(std::distance(fs::directory_iterator(folder), fs::directory_iterator()));
}

const std::vector<std::pair<std::string, std::string>> keys = {{"t", "0"}, {"t", "1"}};

Sample sample(const std::string& id) {
  Sample s;
  s.task = "t";
  s.id = id;
  s.variant = "original";
  s.ll = {-1.5, -2};
  s.greedy = {0, 1};
  s.metrics = {{"acc", 1}};
  return s;
}

}  // namespace

TEST_CASE("output: a file appears without hard links too, and says what could not be promised", "[output]") {
  for (const int error : {ENOSYS, EPERM, EOPNOTSUPP, EXDEV, EMLINK})
    for (const bool renameat2_too : {false, true}) {
      const TempDir folder;
      std::vector<long> calls = hard_links;
      if (renameat2_too) calls.push_back(SYS_renameat2);
      const fs::path file = folder.path() / "out";
      INFO(error << " " << renameat2_too);
      CHECK(in_child(folder.path() / "err", [&] {
              without(calls, error);
              write_text_file(file, "text", false);
              return 0;
            }) == 0);
      CHECK(read_text_file(file) == "text");
      CHECK((read_text_file(folder.path() / "err").find("was written") != std::string::npos) == renameat2_too);
      CHECK(files_in(folder.path()) == 2);
    }
}

TEST_CASE("output: what appears meanwhile is not replaced, and the finished work is not lost", "[output]") {
  for (const bool links : {true, false}) {
    const TempDir folder;
    const fs::path file = folder.path() / "out";
    CHECK(in_child(folder.path() / "err", [&] {
            if (!links) without(hard_links, EPERM);
            OutputFile out(file, false);
            out.append("mine");
            folder.write("out", "another's");
            out.commit();
            return 0;
          }) == 80);
    CHECK(read_text_file(file) == "another's");
    const std::string message = read_text_file(folder.path() / "err");
    check_message(message.substr(0, message.size() - 1));
    const size_t kept = message.find("the result is ") + 14;
    CHECK(read_text_file(message.substr(kept, message.find(';', kept) - kept)) == "mine");
  }
}

TEST_CASE("output: nothing is given away that was computed from a file written to meanwhile", "[output]") {
  const TempDir folder;
  const fs::path input = folder.write("input", "weights");
  const MappedFile mapped(input);
  CHECK_NOTHROW(write_text_file(folder.path() / "before", "text", false));
  fs::rename(folder.write("other", "changed"), input);  // the mapped one has lost its name only
  CHECK_NOTHROW(write_text_file(folder.path() / "replaced", "text", false));

  const fs::path second = folder.write("second", "weights");
  const MappedFile mapped_too(second);
  for (const char* added : {"more", ""}) {
    if (*added != 0) std::ofstream(second, std::ios::app) << added;
    else fs::resize_file(second, 7);  // as long as before
    input_error([&] { write_text_file(folder.path() / "after", "text", false); }, {"second", "was written to"});
    CHECK(!fs::exists(folder.path() / "after"));
  }
}

TEST_CASE("output: what a killed process left is in nobody's way, and goes", "[output]") {
  const TempDir folder;
  const fs::path file = folder.path() / "out";
  const std::string own = "out.partial-" + std::to_string(::getpid());
  for (const std::string& left : {own, own + "-1", std::string("out.partial-1"), std::string("out.partial-99999999999")})
    folder.write(left, "half");
  for (const char* other : {"out.partial", "out.partial-", "out.partial-1x", "xout.partial-1", "out.finished-1"})
    folder.write(other, "kept");
  fs::create_symlink("out.finished-1", folder.path() / "out.partial-2");
  fs::create_directory(folder.path() / "out.partial-3");
  write_text_file(file, "text", false);
  CHECK(read_text_file(file) == "text");
  CHECK(files_in(folder.path()) == 8);
  CHECK(read_text_file(folder.path() / "out.finished-1") == "kept");

  // Of a process that lives it stays, and both finish.
  OutputFile first(file, true), second(file, true);
  first.append("first");
  second.append("second");
  first.commit();
  CHECK(read_text_file(file) == "first");
  second.commit();
  CHECK(read_text_file(file) == "second");
  CHECK(files_in(folder.path()) == 8);
}

TEST_CASE("output: files without locks are left alone", "[output]") {
  const TempDir folder;
  folder.write("out.partial-1", "half");
  CHECK(in_child(folder.path() / "err", [&] {
          without({SYS_flock}, ENOSYS);
          write_text_file(folder.path() / "out", "text", false);
          return 0;
        }) == 0);
  CHECK(fs::exists(folder.path() / "out.partial-1"));
  CHECK(read_text_file(folder.path() / "out") == "text");
}

TEST_CASE("output: names that cannot be are InputErrors", "[output]") {
  const TempDir folder;
  fs::create_symlink("loop", folder.path() / "loop");
  for (const fs::path& name : {folder.path() / "loop", folder.path() / std::string(300, 'a'), folder.path(),
                               folder.path() / "none" / "x", fs::path("/dev/null/x"), fs::path()}) {
    input_error([&] { write_text_file(name, "text", false); }, {});
    if (name != folder.path() / "loop") input_error([&] { write_text_file(name, "text", true); }, {});
    input_error([&] { SampleFile(name, {{"a", 1}}, keys, {"original"}, false); }, {});
    input_error([&] { merge_shards({name.string()}, *std::make_unique<std::vector<Sample>>()); }, {});
  }
}

TEST_CASE("samples: are written without locks too, which is said", "[output]") {
  for (const int error : {ENOSYS, ENOLCK, EOPNOTSUPP}) {
    const TempDir folder;
    const fs::path file = folder.path() / "s";
    CHECK(in_child(folder.path() / "err", [&] {
            without({SYS_flock}, error);
            SampleFile samples(file, {{"a", 1}}, keys, {"original"}, false);
            samples.append({sample("0"), sample("1")});
            samples.finish();
            return 0;
          }) == 0);
    CHECK(read_text_file(file) == sample_line(sample("0")) + sample_line(sample("1")));
    CHECK_THAT(read_text_file(folder.path() / "err"), Catch::Matchers::Contains("no locks"));
  }
}

TEST_CASE("samples: a run goes on from whatever a kill left", "[output]") {
  const TempDir folder;
  const fs::path file = folder.path() / "s", partial = folder.path() / "s.partial";
  const RunInfo info = {{"model", "m"}, {"patch", "none"}};
  const auto found = [&](const RunInfo& run = {{"model", "another name"}, {"patch", "none"}}, bool force = false) {
    return SampleFile(file, run, keys, {"original"}, force).found().size();
  };
  folder.write("s.partial", "");  // killed before .run.json was there
  CHECK(found(info) == 0);
  folder.write("s.partial", sample_line(sample("0")));
  CHECK(found() == 1);
  folder.write("s.partial", sample_line(sample("0")) + "{\"task\": \"t");
  CHECK(found() == 1);
  input_error([&] { found({{"model", "m"}, {"patch", "1:2"}}); }, {"another run (patch is \"none\", here \"1:2\")"});
  CHECK(found() == 1);
  // Whose .run.json is lost nobody knows.
  fs::rename(folder.path() / "s.run.json", folder.path() / "kept");
  input_error([&] { found(); }, {"s.run.json", "is not there"});
  for (const std::string& broken : {std::string("["), std::string("[]"), std::string("3"), std::string(""),
                                    std::string(200'000, '[') + std::string(200'000, ']')}) {
    folder.write("s.run.json", broken);
    input_error([&] { found(); }, {"s.run.json"});
  }
  fs::rename(folder.path() / "kept", folder.path() / "s.run.json");
  for (const std::string& broken : {std::string("[]"), std::string("{}"), std::string("{\"task\": 1}"),
                                    std::string(200'000, '[') + std::string(200'000, ']')}) {
    folder.write("s.partial", broken + "\n");
    input_error([&] { found(); }, {"s.partial:1"});
  }
  CHECK(found(info, true) == 0);
}

TEST_CASE("samples: --force removes names, not what links point to; a symbolic one is no output", "[output]") {
  for (const bool force : {false, true})
    for (const char* name : {"s.partial", "s", "s.run.json"})
      for (const bool hard : {false, true}) {
        const TempDir folder;
        const fs::path victim = folder.write("victim", "precious");
        if (hard) fs::create_hard_link(victim, folder.path() / name);
        else fs::create_symlink("victim", folder.path() / name);
        INFO(force << name << hard);
        const bool refused = !force || (!hard && name != std::string("s.partial"));
        try {
          SampleFile samples(folder.path() / "s", {{"a", 1}}, keys, {"original"}, force);
          samples.append({sample("0"), sample("1")});
          samples.finish();
        } catch (const InputError&) {
          CHECK(refused);
        }
        CHECK(read_text_file(victim) == "precious");
        if (!refused) CHECK(read_text_file(folder.path() / "s") == sample_line(sample("0")) + sample_line(sample("1")));
      }
}

TEST_CASE("samples: only whole shards of one run are merged", "[output]") {
  const TempDir folder;
  const nlohmann::json good = {{"patch", "none"}, {"variants", {"original"}},
                               {"shard", {{"index", 0}, {"of", 1}, {"first", 0}, {"end", 1}}}};
  folder.write("a", sample_line(sample("0")));
  const auto merge = [&](const std::string& info) {
    folder.write("a.run.json", info);
    std::vector<Sample> samples;
    merge_shards({(folder.path() / "a").string()}, samples);
    return samples.size();
  };
  CHECK(merge(good.dump()) == 1);
  for (const char* key : {"variants", "shard"}) {
    for (const nlohmann::json& wrong : std::vector<nlohmann::json>{nullptr, 3, "a", nlohmann::json::array(), nlohmann::json::object()}) {
      nlohmann::json info = good;
      info[key] = wrong;
      input_error([&] { merge(info.dump()); }, {"a"});
      info.erase(key);
      input_error([&] { merge(info.dump()); }, {"a"});
    }
  }
  for (const char* key : {"index", "of", "first", "end"})
    for (const nlohmann::json& wrong : std::vector<nlohmann::json>{nullptr, "0", -1, 0.5, 5'000'000'000, nlohmann::json::array()}) {
      nlohmann::json info = good;
      info["shard"][key] = wrong;
      input_error([&] { merge(info.dump()); }, {"a"});
      info["shard"].erase(key);
      input_error([&] { merge(info.dump()); }, {"a"});
    }
}

TEST_CASE("samples: a GGUF's vocabulary is told from another, forgotten or not", "[output]") {
  const TempDir folder;
  const auto hash = [&](const std::vector<std::string>& tokens, bool forget) {
    GgufBuilder gguf = tiny_gguf().text("tokenizer.ggml.model", "llama").texts("tokenizer.ggml.tokens", tokens);
    Checkpoint checkpoint = Checkpoint::open(folder.write("m.gguf", gguf.build()));
    if (forget) checkpoint.forget_vocabulary();
    return tokenizer_sha256(checkpoint);
  };
  const std::vector<std::string> some(16, "a"), others(16, "b");
  CHECK(hash(some, false) == hash(some, true));
  CHECK(hash(others, true) == hash(others, true));
  CHECK(hash(some, true) != hash(others, true));
}
