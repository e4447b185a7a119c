// A pool of threads that sleep. OpenMP's spin while they wait, which beside other work on the same
// cores takes the time of those that have something to do.

#include "base/threads.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <memory>
#include <string>
#include <utility>

namespace sinkref {

namespace {

// Decoding starts a loop every few dozen microseconds: sleeping in between would cost more.
constexpr auto shortest_sleep = std::chrono::microseconds(30);
constexpr size_t most_threads = 1024;
// Who helps another should find something left: so many pieces has each thread's stretch.
constexpr size_t pieces_per_stretch = 128;
constexpr size_t stack_bytes = size_t{2} << 20;

void pause_core() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

/// Returns when `word` is no longer `old`: after some watching by sleeping.
uint32_t wait_for_change(const std::atomic<uint32_t>& word, uint32_t old, bool watch) {
  if (watch) {
    const auto end = std::chrono::steady_clock::now() + shortest_sleep;
    do {
      for (int i = 0; i < 32; ++i) {
        if (const uint32_t now = word.load(std::memory_order_acquire); now != old) return now;
        pause_core();
      }
    } while (std::chrono::steady_clock::now() < end);
  }
  word.wait(old, std::memory_order_acquire);
  return word.load(std::memory_order_acquire);
}

/// What is left of a thread's stretch, in a cache line of its own.
struct alignas(64) Next {
  std::atomic<size_t> i;
};

class Pool {
 public:
  Pool() : cores_(usable_cores()), default_(cores_) {
    if (const char* wanted = std::getenv("OMP_NUM_THREADS")) {
      const unsigned long n = std::strtoul(wanted, nullptr, 10);
      if (n >= 1) default_ = std::min<size_t>(n, most_threads);
    }
  }

  size_t default_count() const { return default_; }

  void run(size_t n, size_t threads, threads::Call call, const void* f) {
    if (threads < 2 || busy_.exchange(true, std::memory_order_acquire)) return call(f, 0, n);
    try {
      start_workers(threads);
    } catch (const std::bad_alloc&) {  // there is no room for more of them
    }
    team_ = std::min({threads, n, workers_ + 1});
    if (team_ < 2) {
      busy_.store(false, std::memory_order_release);
      return call(f, 0, n);
    }
    n_ = n;
    grain_ = std::max<size_t>(1, n / (team_ * pieces_per_stretch));
    call_ = call;
    f_ = f;
    failed_.store(false, std::memory_order_relaxed);
    for (size_t t = 0; t < team_; ++t) next_[t].i.store(begin(t), std::memory_order_relaxed);
    state_.store(open, std::memory_order_release);
    epoch_.fetch_add(1, std::memory_order_release);
    epoch_.notify_all();
    work(0);
    // Nobody joins from here on; those who have are waited for.
    uint32_t state = state_.fetch_and(~open, std::memory_order_acq_rel) & ~open;
    while (state != 0) state = wait_for_change(state_, state, team_ <= cores_);
    const std::exception_ptr error = std::exchange(error_, nullptr);
    busy_.store(false, std::memory_order_release);
    if (error) std::rethrow_exception(error);
  }

 private:
  static constexpr uint32_t open = uint32_t{1} << 31;  // of state_; below it how many have joined

  struct Start {
    Pool* pool;
    size_t self;
    uint32_t epoch;
  };

  size_t begin(size_t t) const {  // n * t / team, which could not be computed for a huge n
    return n_ / team_ * t + std::min(t, n_ % team_);
  }

  void work(size_t self) {
    for (size_t step = 0; step < team_; ++step) {
      const size_t t = (self + step) % team_, end = begin(t + 1);
      std::atomic<size_t>& next = next_[t].i;
      while (next.load(std::memory_order_relaxed) < end) {
        if (failed_.load(std::memory_order_relaxed)) return;
        const size_t i = next.fetch_add(grain_, std::memory_order_relaxed);
        if (i >= end) break;
        try {
          call_(f_, i, std::min(end, i + grain_));
        } catch (...) {
          if (!failed_.exchange(true)) error_ = std::current_exception();
        }
      }
    }
  }

  bool join() {
    uint32_t state = state_.load(std::memory_order_relaxed);
    do {
      if ((state & open) == 0) return false;
    } while (!state_.compare_exchange_weak(state, state + 1, std::memory_order_acquire,
                                           std::memory_order_relaxed));
    return true;
  }

  void leave() {
    if (state_.fetch_sub(1, std::memory_order_acq_rel) == 1) state_.notify_one();
  }

  [[noreturn]] void serve(size_t self, uint32_t epoch) {
    for (;;) {
      epoch = wait_for_change(epoch_, epoch, watch_.load(std::memory_order_relaxed));
      if (!join()) continue;
      if (self < team_) work(self);
      leave();
    }
  }

  /// As many as can be had.
  void start_workers(size_t threads) {
    watch_.store(threads <= cores_, std::memory_order_relaxed);
    if (threads == asked_) return;
    asked_ = threads;
    if (threads > room_) {
      next_ = std::make_unique<Next[]>(threads);
      room_ = threads;
    }
    while (workers_ + 1 < threads && start_worker()) ++workers_;
  }

  bool start_worker() {
    auto start = std::make_unique<Start>(
        Start{this, workers_ + 1, epoch_.load(std::memory_order_relaxed)});
    // Signals belong to the program's own threads, but for those that a thread raises by itself.
    sigset_t others, before;
    sigfillset(&others);
    for (const int own : {SIGBUS, SIGSEGV, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS})
      sigdelset(&others, own);
    pthread_attr_t attributes;
    if (pthread_attr_init(&attributes) != 0) return false;
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, stack_bytes);
    pthread_sigmask(SIG_SETMASK, &others, &before);
    pthread_t thread;
    const auto serve = [](void* given) -> void* {
      const Start own = *std::unique_ptr<Start>(static_cast<Start*>(given));
      own.pool->serve(own.self, own.epoch);
    };
    const bool started = pthread_create(&thread, &attributes, serve, start.get()) == 0;
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    pthread_attr_destroy(&attributes);
    if (started) start.release();
    return started;
  }

  const size_t cores_;
  size_t default_;
  std::atomic<bool> busy_{false};  // by the thread whose loop is run
  std::atomic<bool> watch_{true};  // a little, before sleeping
  size_t asked_ = 1, workers_ = 0, room_ = 0;
  std::unique_ptr<Next[]> next_;

  // The loop. Who has joined reads it.
  size_t n_ = 0, team_ = 0, grain_ = 0;
  threads::Call call_ = nullptr;
  const void* f_ = nullptr;
  std::exception_ptr error_;
  std::atomic<bool> failed_{false};

  alignas(64) std::atomic<uint32_t> epoch_{0};
  alignas(64) std::atomic<uint32_t> state_{0};
};

// Never destroyed: its threads sleep on it until the process ends.
std::atomic<Pool*> the_pool{nullptr};
std::atomic<size_t> wanted{0};

Pool& pool() {
  Pool* there = the_pool.load(std::memory_order_acquire);
  if (there != nullptr) return *there;
  // A child has only the thread that called fork(): it makes a pool of its own.
  static const int once = pthread_atfork(nullptr, nullptr, [] { the_pool.store(nullptr); });
  static_cast<void>(once);
  auto made = std::make_unique<Pool>();
  if (the_pool.compare_exchange_strong(there, made.get())) return *made.release();
  return *there;
}

/// A number, or `none` for "max", "-1" and files that are not there.
double number_in(std::istream& in, double none) {
  std::string text;
  in >> text;
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  return text.empty() || *end != 0 || value <= 0 ? none : value;
}

constexpr double unlimited = 1e9;

/// Cores of one cgroup. Version 2 has "QUOTA PERIOD" in cpu.max, version 1 a file for each.
double cores_of(const std::filesystem::path& group, bool version_2) {
  if (version_2) {
    std::ifstream both(group / "cpu.max");
    const double quota = number_in(both, 0), period = number_in(both, 0);
    return quota > 0 && period > 0 ? quota / period : unlimited;
  }
  std::ifstream quotas(group / "cpu.cfs_quota_us"), periods(group / "cpu.cfs_period_us");
  const double quota = number_in(quotas, 0), period = number_in(periods, 0);
  return quota > 0 && period > 0 ? quota / period : unlimited;
}

/// The least of a cgroup and those above it.
double cores_up_from(const std::filesystem::path& mount, std::filesystem::path group,
                     bool version_2) {
  double least = unlimited;
  for (;; group = group.parent_path()) {
    least = std::min(least, cores_of(mount / group.relative_path(), version_2));
    if (group.relative_path().empty()) return least;
  }
}

}  // namespace

size_t quota_cores(const std::filesystem::path& list, const std::filesystem::path& mount) {
  std::ifstream in(list);
  double least = unlimited;
  for (std::string line; std::getline(in, line);) {  // "4:cpu,cpuacct:/group", "0::/group"
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == line.npos || second == line.npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const std::filesystem::path group = line.substr(second + 1);
    if (controllers.empty()) {
      least = std::min(least, cores_up_from(mount, group, true));
      least = std::min(least, cores_up_from(mount / "unified", group, true));
    } else if (("," + controllers + ",").find(",cpu,") != std::string::npos) {
      for (const std::string& name : {std::string("cpu"), controllers})
        least = std::min(least, cores_up_from(mount / name, group, false));
    }
  }
  return least == unlimited ? 0 : static_cast<size_t>(std::max(1.0, std::min(least + 0.999, 1e6)));
}

size_t usable_cores() {
  size_t cores = 1;
  // A machine of more cores than a cpu_set_t holds needs a larger one.
  for (int room = CPU_SETSIZE; room <= 1 << 20; room *= 2) {
    const size_t bytes = CPU_ALLOC_SIZE(room);
    const std::unique_ptr<cpu_set_t, void (*)(cpu_set_t*)> set(CPU_ALLOC(static_cast<size_t>(room)),
                                                               [](cpu_set_t* s) { CPU_FREE(s); });
    if (!set || sched_getaffinity(0, bytes, set.get()) != 0) continue;
    cores = std::max<size_t>(1, static_cast<size_t>(CPU_COUNT_S(bytes, set.get())));
    break;
  }
  const size_t quota = quota_cores("/proc/self/cgroup", "/sys/fs/cgroup");
  return quota == 0 ? cores : std::min(cores, quota);
}

size_t thread_count() {
  const size_t n = wanted.load(std::memory_order_relaxed);
  return n != 0 ? n : pool().default_count();
}

void set_thread_count(size_t threads) {
  wanted.store(std::min(threads, most_threads), std::memory_order_relaxed);
}

namespace threads {
void run(size_t n, Call call, const void* f) { pool().run(n, thread_count(), call, f); }
}  // namespace threads

}  // namespace sinkref
