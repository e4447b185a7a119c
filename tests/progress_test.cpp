// Percent and time left, commands for a shell, and results that outlive a process.

#include "base/progress.h"

#include <catch2/catch.hpp>
#include <cstdio>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>

#include "base/shell.h"
#include "measure/kept.h"
#include "measure/panels.h"
#include "measure/report_folder.h"
#include "planted_model.h"
#include "sinkref/error.h"
#include "temp_dir.h"

using namespace sinkref;
namespace fs = std::filesystem;

namespace {

/// A clock that goes as it is told, and what was said.
struct Watch {
  double now = 0;
  std::vector<std::string> said;
  Progress progress(bool terminal) {
    return {terminal, [this](const std::string& text) { said.push_back(text); }, [this] { return now; }};
  }
};

}  // namespace

TEST_CASE("progress: time left is what the rest takes at the speed so far", "[progress]") {
  Watch watch;
  Progress progress = watch.progress(false);
  progress.plan(100);
  progress.step("one", 40);
  CHECK(progress.left() < 0);  // too early to say
  watch.now = 5;
  progress.share(0.25);
  CHECK(progress.done() == 10);
  CHECK(progress.left() == 45);
  progress.share(0.1);  // does not go back
  CHECK(progress.done() == 10);
  watch.now = 20;
  progress.step("two", 40);
  CHECK(progress.done() == 40);
  CHECK(progress.left() == 30);
  progress.skip(20);  // found, not done
  CHECK(progress.left() == 20);
  progress.settle(80);
  CHECK(progress.left() == 0);
}

TEST_CASE("progress: lines elsewhere come with each step and every ten seconds", "[progress]") {
  Watch watch;
  Progress progress = watch.progress(false);
  progress.plan(10);
  progress.step("one", 5);
  progress.share(0.5);
  CHECK(watch.said == std::vector<std::string>{"  0 %: one\n"});
  watch.now = 10;
  progress.share(0.8);
  watch.now = 12;
  progress.step("one", 1);  // the same, said already
  progress.step("two", 4);
  CHECK(watch.said == std::vector<std::string>{"  0 %: one\n", " 40 %, 15 s left: one\n", " 60 %, 8 s left: two\n"});
}

TEST_CASE("progress: a terminal's line renews itself and is gone at the end", "[progress]") {
  Watch watch;
  {
    Progress progress = watch.progress(true);
    progress.plan(10);
    progress.step("one", 5);
    progress.share(0.5);  // at once: not again
    watch.now = 1;
    progress.share(0.6);
  }
  REQUIRE(watch.said.size() == 3);
  CHECK(watch.said[0] == "\r  0 %: one\033[K");
  CHECK(watch.said[1] == "\r 30 %, 2 s left: one\033[K");
  CHECK(watch.said[2] == "\r\033[K");
}

TEST_CASE("shell: a quoted text is one word, whatever it holds", "[progress]") {
  CHECK(shell_quoted("models/tiny-1.gguf") == "models/tiny-1.gguf");
  CHECK(shell_quoted("two words") == "'two words'");
  CHECK(shell_quoted("it's") == "'it'\\''s'");
  for (const std::string& text :
       {std::string(), std::string("'; echo run; '"), std::string("$(echo run)"), std::string("`echo run`"),
        std::string("a\nb"), std::string("tab\tand 'quote' \\ \x1b[31m"), std::string("\xff\xfe 8"),
        std::string("=ls"), std::string("!!"), std::string("über ~ * ? # &|;<>\"")}) {
    INFO(text);
    const std::string command = "bash -c " + shell_quoted("printf %s " + shell_quoted(text));
    CHECK(shell_quoted(text).find('\n') == std::string::npos);
    FILE* pipe = ::popen(command.c_str(), "r");
    REQUIRE(pipe != nullptr);
    std::string out;
    for (int c; (c = std::fgetc(pipe)) != EOF;) out += static_cast<char>(c);
    CHECK(::pclose(pipe) == 0);
    CHECK(out == text);
  }
}

TEST_CASE("kept: values come back to the bit, and other types are refused", "[progress]") {
  struct Inner {
    double x = 0;
    std::optional<size_t> maybe;
    std::vector<std::string> names;
  };
  struct Outer {
    std::array<std::vector<int>, 2> lists;
    bool flag = false;
    std::vector<Inner> inner;
  };
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const Outer before{{{{1, 2}, {}}}, true, {{0.1, {}, {"a", ""}}, {-0.0, 7, {}}, {nan, 1, {"c"}}}};
  std::string bytes;
  archive::write(bytes, before);
  Outer after;
  archive::Reader in(bytes);
  in.read(after);
  CHECK(in.at_end());
  CHECK(after.lists == before.lists);
  CHECK(after.flag);
  REQUIRE(after.inner.size() == 3);
  CHECK(after.inner[0].x == 0.1);
  CHECK(std::signbit(after.inner[1].x));
  CHECK(std::isnan(after.inner[2].x));
  CHECK(after.inner[1].maybe == size_t{7});
  CHECK(after.inner[0].names == before.inner[0].names);
  for (size_t length = 0; length < bytes.size(); ++length) {
    archive::Reader cut(std::string_view(bytes).substr(0, length));
    CHECK_THROWS_AS(cut.read(after), archive::Mismatch);
  }
  std::vector<int> other;
  archive::Reader wrong(bytes);
  CHECK_THROWS_AS(wrong.read(other), archive::Mismatch);
}

TEST_CASE("kept: only whole stages of the same request are found", "[progress]") {
  const TempDir folder;
  const fs::path kept_in = folder / "unfinished";
  const nlohmann::ordered_json ours = {{"weights", "a"}, {"repeats", 4}};
  const auto file = [&](const char* stage) { return kept_in / (std::string(stage) + ".kept"); };
  {
    Kept kept(kept_in, ours, false);
    CHECK_THROWS_AS(Kept(kept_in, ours, false), InputError);  // another process is there
  }
  CHECK_FALSE(fs::exists(kept_in));  // nothing was kept
  {
    Kept kept(kept_in, ours, false);
    kept.put("one", "bytes");
    kept.put("two", "more");
  }
  fs::copy_file(file("one"), file("three"));  // of another stage
  fs::resize_file(file("two"), fs::file_size(file("two")) - 1);
  {
    Kept kept(kept_in, ours, false);
    CHECK(kept.found() == 3);
    CHECK(kept.find("one") == std::optional<std::string>("bytes"));
    CHECK_FALSE(kept.find("two"));
    CHECK_FALSE(kept.find("three"));
    CHECK_FALSE(kept.find("four"));
  }
  const nlohmann::ordered_json other = {{"weights", "a"}, {"repeats", 5}};
  CHECK_THROWS_WITH(Kept(kept_in, other, false), Catch::Contains("repeats"));
  CHECK(fs::exists(file("one")));
  Kept replaced(kept_in, other, true);
  CHECK(replaced.found() == 0);
  CHECK_FALSE(replaced.find("one"));
  replaced.remove();
  CHECK_FALSE(fs::exists(kept_in));
}

TEST_CASE("kept: a report that stops at any panel goes on from there to the same bytes", "[progress]") {
  const PlantedModel planted({{3, 0.55}, {9, 0.45}});
  const Model model = planted.open();
  const Experiment experiment{model, "model", {}, stimuli_for(model, planted_stimuli()), "fp32", {}, {}};
  const auto told = [&](const Results& results) {
    std::string text = panels_json(experiment, results, panels(), true).dump();
    text += page_html(report_page(experiment, results, panels_json(experiment, results, panels(), true)));
    for (const NamedTensor& tensor : panel_tensors(results, panels())) archive::write(text, tensor);
    return text;
  };
  const std::string expected = told(measure(experiment, panels()));
  struct Stopped {};
  for (size_t at = 0; at < panels().size(); ++at) {
    if (panels()[at].measure == nullptr) continue;
    INFO(panels()[at].key);
    const TempDir folder;
    std::vector<Panel> stopping = panels(), going_on = panels();
    stopping[at].measure = [](const Experiment&, Results&) { throw Stopped(); };
    // What was finished before must not be measured again.
    for (size_t i = 0; i < at; ++i)
      if (going_on[i].measured.load != nullptr)
        going_on[i].measure = [](const Experiment&, Results&) { throw std::logic_error("measured again"); };
    for (Panel& panel : going_on)
      if (panel.watch != nullptr)
        panel.watch = [](const Experiment&, Results&, Hooks<float>&) { throw std::logic_error("run again"); };
    {
      Kept kept(folder / "unfinished", {{"same", true}}, false);
      CHECK_THROWS_AS(measure(experiment, stopping, kept), Stopped);
    }
    Kept kept(folder / "unfinished", {{"same", true}}, false);
    CHECK(kept.found() > 0);
    CHECK((told(measure(experiment, going_on, kept)) == expected));
  }
}
