#pragma once

#include <cstddef>
#include <filesystem>

namespace sinkref {

/// Threads that a loop may use: what set_thread_count() said, else OMP_NUM_THREADS, else
/// usable_cores().
size_t thread_count();
void set_thread_count(size_t threads);  ///< 0: the default again

/// Cores this process may keep busy: no more than its affinity and its cgroups' CPU quota allow.
size_t usable_cores();

/// Whole cores that the CPU quota of a process allows, rounded up, or 0 without one. `list` is its
/// /proc/self/cgroup, `mount` the folder of the cgroups, version 1 or 2.
size_t quota_cores(const std::filesystem::path& list, const std::filesystem::path& mount);

namespace threads {
using Call = void (*)(const void* f, size_t begin, size_t end);
void run(size_t n, Call call, const void* f);
}  // namespace threads

/// f(i) for all i in [0, n), shared out among the threads: each has a stretch of consecutive i of its
/// own, and who is done helps the others. The calling thread is one of them and waits only for pieces
/// that others have begun, so that a thread without a core holds nobody up. Fewer than `pays_from` run
/// in the calling thread alone, and so does a loop inside another, or beside one of another thread.
/// What f throws first is thrown here, and i that have not begun are left out.
template <class F>
void parallel_for(size_t n, const F& f, size_t pays_from = 2) {
  const auto call = [](const void* context, size_t begin, size_t end) {
    const F& body = *static_cast<const F*>(context);
    for (size_t i = begin; i < end; ++i) body(i);
  };
  if (n < pays_from || n < 2)
    call(&f, 0, n);
  else
    threads::run(n, call, &f);
}

}  // namespace sinkref
