#include <algorithm>
#include <chrono>
#include <thread>

#include "bench/bench.h"

namespace sinkref {

namespace {

using Clock = std::chrono::steady_clock;

double since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

}  // namespace

std::vector<double> alternate(const std::vector<std::function<double()>>& contenders,
                              size_t rounds) {
  std::vector<std::vector<double>> times(contenders.size());
  for (size_t round = 0; round < rounds; ++round)
    for (size_t i = 0; i < contenders.size(); ++i) times[i].push_back(contenders[i]());
  std::vector<double> medians;
  for (std::vector<double>& t : times) {
    std::sort(t.begin(), t.end());
    medians.push_back((t[(t.size() - 1) / 2] + t[t.size() / 2]) / 2);
  }
  return medians;
}

double seconds_per_call(const std::function<void()>& call) {
  constexpr double least = 0.05;
  std::this_thread::sleep_for(std::chrono::milliseconds(40));
  Clock::time_point start = Clock::now();
  call();
  const double first = since(start);
  if (first >= least) return first;
  // A short call: the first woke the threads and is not counted.
  size_t calls = 0;
  start = Clock::now();
  while (since(start) < least) {
    call();
    ++calls;
  }
  return since(start) / static_cast<double>(calls);
}

}  // namespace sinkref
