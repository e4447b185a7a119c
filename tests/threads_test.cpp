// The pool of threads: every index once, whatever the number of threads, exceptions, nesting, fork().

#include "base/threads.h"

#include <sched.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <chrono>
#include <fstream>
#include <mutex>
#include <numeric>
#include <set>
#include <stdexcept>
#include <thread>
#include <vector>

using namespace sinkref;

namespace {

/// The default number of threads again, whatever a test has set.
struct Threads {
  explicit Threads(size_t n) { set_thread_count(n); }
  ~Threads() { set_thread_count(0); }
};

bool each_index_once(size_t n) {
  std::vector<std::atomic<int>> times(n);
  parallel_for(n, [&](size_t i) { ++times[i]; });
  for (const std::atomic<int>& t : times)
    if (t != 1) return false;
  return true;
}

/// The exit code of f in a child process, or -1 if a signal ended it or it did not end in 20 s.
template <class F>
int in_child(const F& f) {
  const pid_t child = ::fork();
  if (child == 0) {
    ::alarm(20);
    ::_exit(f());
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

void write(const std::filesystem::path& file, const std::string& text) {
  std::filesystem::create_directories(file.parent_path());
  std::ofstream(file) << text;
}

}  // namespace

TEST_CASE("parallel_for calls every index once, for any number of threads and indices", "[threads]") {
  for (size_t threads : {0, 1, 2, 3, 7, 64, 256}) {
    const Threads set(threads);
    for (size_t n : {0, 1, 2, 3, 5, 31, 64, 257, 10'000}) {
      CAPTURE(threads, n);
      CHECK(each_index_once(n));
    }
  }
}

TEST_CASE("Several threads work at one loop", "[threads]") {
  const Threads set(4);
  std::mutex mutex;
  std::set<std::thread::id> seen;
  // Each index waits until two threads are there: were one alone, it would not end.
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  parallel_for(4, [&](size_t) {
    for (size_t there = 0; there < 2 && std::chrono::steady_clock::now() < end;) {
      const std::lock_guard lock(mutex);
      seen.insert(std::this_thread::get_id());
      there = seen.size();
    }
  });
  CHECK(seen.size() >= 2);
}

TEST_CASE("Loops that follow each other see what those before have written", "[threads]") {
  const Threads set(3);
  std::vector<size_t> values(1000, 0);
  for (size_t round = 0; round < 2000; ++round)
    parallel_for(values.size(), [&](size_t i) { values[i] = values[i] + 1; });
  CHECK(std::accumulate(values.begin(), values.end(), size_t{0}) == 2'000'000);
}

TEST_CASE("A loop below its pays_from runs in the calling thread, in order", "[threads]") {
  const Threads set(4);
  std::vector<size_t> order;
  parallel_for(7, [&](size_t i) { order.push_back(i); }, 8);
  CHECK(order == std::vector<size_t>{0, 1, 2, 3, 4, 5, 6});
}

TEST_CASE("An exception of a loop reaches its caller, and the next loop runs", "[threads]") {
  const Threads set(4);
  for (size_t bad : {0, 1, 500, 999}) {
    const auto loop = [&] {
      parallel_for(1000, [&](size_t i) {
        if (i == bad) throw std::runtime_error("at " + std::to_string(i));
      });
    };
    CHECK_THROWS_WITH(loop(), "at " + std::to_string(bad));
    CHECK(each_index_once(1000));
  }
}

TEST_CASE("A loop inside a loop, and loops of several threads at once, run to their ends", "[threads]") {
  const Threads set(3);
  std::atomic<size_t> count = 0;
  parallel_for(20, [&](size_t) { parallel_for(50, [&](size_t) { ++count; }); });
  CHECK(count == 1000);
  std::vector<std::thread> callers;
  for (int caller = 0; caller < 4; ++caller)
    callers.emplace_back([&] {
      for (int round = 0; round < 200; ++round) parallel_for(100, [&](size_t) { ++count; });
    });
  for (std::thread& caller : callers) caller.join();
  CHECK(count == 81'000);
}

TEST_CASE("A child of fork() has threads of its own", "[threads][fork]") {
  const Threads set(4);
  REQUIRE(each_index_once(100));
  CHECK(in_child([] { return each_index_once(10'000) ? 0 : 1; }) == 0);
  CHECK(each_index_once(100));
}

TEST_CASE("Without a thread to be had the loop runs all the same", "[threads][fork]") {
  // A pool that has started none, for it is the child's.
  CHECK(in_child([] {
          const rlimit none{0, 0};
          ::setrlimit(RLIMIT_NPROC, &none);  // does not bind root, the next does
          const rlimit little{size_t{1} << 20, size_t{1} << 20};
          ::setrlimit(RLIMIT_AS, &little);
          set_thread_count(64);
          size_t sum = 0;  // unguarded: only one thread may be there
          parallel_for(1000, [&](size_t i) { sum += i; });
          return sum == 499'500 ? 0 : 1;
        }) == 0);
}

TEST_CASE("The default is the cores of the process's affinity", "[threads]") {
  CHECK(in_child([] {
          cpu_set_t one;
          CPU_ZERO(&one);
          CPU_SET(sched_getcpu(), &one);
          ::unsetenv("OMP_NUM_THREADS");
          if (sched_setaffinity(0, sizeof one, &one) != 0) return 2;
          return thread_count() == 1 ? 0 : 1;
        }) == 0);
  CHECK(in_child([] {
          ::setenv("OMP_NUM_THREADS", "3", 1);
          return thread_count() == 3 ? 0 : 1;
        }) == 0);
  const Threads set(5);
  CHECK(thread_count() == 5);
}

TEST_CASE("A CPU quota is found in cgroups of both versions, above the group too", "[threads]") {
  namespace fs = std::filesystem;
  const fs::path root = fs::temp_directory_path() / ("sinkref-cgroup-" + std::to_string(::getpid()));
  const auto cores = [&](const std::string& list) {
    write(root / "list", list);
    return quota_cores(root / "list", root / "mount");
  };
  CHECK(quota_cores(root / "none", root / "mount") == 0);
  CHECK(cores("0::/a/b\n") == 0);
  write(root / "mount/cpu.max", "max 100000\n");
  write(root / "mount/a/b/cpu.max", "max 100000\n");
  CHECK(cores("0::/a/b\n") == 0);
  write(root / "mount/a/cpu.max", "150000 100000\n");
  CHECK(cores("0::/a/b\n") == 2);
  write(root / "mount/a/b/cpu.max", "50000 100000\n");
  CHECK(cores("0::/a/b\n") == 1);
  write(root / "mount/cpu/job/cpu.cfs_quota_us", "-1\n");
  write(root / "mount/cpu/job/cpu.cfs_period_us", "100000\n");
  CHECK(cores("2:memory:/x\n1:cpu:/job\n") == 0);
  write(root / "mount/cpu,cpuacct/job/cpu.cfs_quota_us", "300000\n");
  write(root / "mount/cpu,cpuacct/job/cpu.cfs_period_us", "100000\n");
  CHECK(cores("3:cpu,cpuacct:/job\n") == 3);
  CHECK(cores("3:cpuset:/job\nno colon\n5:\n") == 0);
  fs::remove_all(root);
}
