// What this machine can do at most: reads from memory and fused multiply-adds per second.

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "bench/limits.cpp"
#include <hwy/foreach_target.h>  // must come before highway.h
#include <hwy/highway.h>

#include <cstdint>
#include <numeric>
#include <vector>

#include "bench/bench.h"

HWY_BEFORE_NAMESPACE();
namespace sinkref {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

constexpr size_t chains = 12;  // enough to hide the latency of an FMA or a load

/// Bitwise or of n words, the cheapest use of a load. Eight places are read in turn: a core gets
/// more from memory so than from one place.
uint32_t read_all(const uint32_t* words, size_t n) {
  constexpr size_t streams = 8;
  const hn::ScalableTag<uint32_t> d;
  const size_t part = n / streams, line = 64 / sizeof(uint32_t);
  hn::Vec<decltype(d)> all[streams];
  HWY_UNROLL(8)
  for (size_t s = 0; s < streams; ++s) all[s] = hn::Zero(d);
  for (size_t i = 0; i + line <= part; i += line) {
    HWY_UNROLL(8)
    for (size_t s = 0; s < streams; ++s)
      for (size_t j = 0; j < line; j += hn::Lanes(d))
        all[s] = hn::Or(all[s], hn::LoadU(d, words + s * part + i + j));
  }
  auto any = all[0];
  for (size_t s = 1; s < streams; ++s) any = hn::Or(any, all[s]);
  return hn::GetLane(hn::SumOfLanes(d, any));
}

/// `steps` times `chains` vector multiply-adds; gives the flops done, and a result to keep.
double multiply_add(size_t steps, float* result) {
  const hn::ScalableTag<float> d;
  const auto factor = hn::Set(d, *result), term = hn::Set(d, 1 - *result);
  hn::Vec<decltype(d)> chain[chains];
  HWY_UNROLL(12)
  for (size_t i = 0; i < chains; ++i) chain[i] = hn::Set(d, static_cast<float>(i));
  for (size_t step = 0; step < steps; ++step) {
    HWY_UNROLL(12)
    for (size_t i = 0; i < chains; ++i) chain[i] = hn::MulAdd(chain[i], factor, term);
  }
  auto all = chain[0];
  for (size_t i = 1; i < chains; ++i) all = hn::Add(all, chain[i]);
  *result = hn::GetLane(all);
  return 2.0 * static_cast<double>(steps * chains * hn::Lanes(d));
}

}  // namespace HWY_NAMESPACE
}  // namespace sinkref
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include "base/threads.h"

namespace sinkref {

namespace {

HWY_EXPORT(read_all);
HWY_EXPORT(multiply_add);
volatile uint32_t kept;  // so that no loop is dropped

}  // namespace

double seconds_per_read_byte() {
  static const std::vector<uint32_t> words(size_t(128) << 20, 1);
  const double seconds = seconds_per_call([] {
    const size_t threads = thread_count(), part = words.size() / threads;
    parallel_for(threads, [&](size_t t) {
      kept = HWY_DYNAMIC_DISPATCH(read_all)(words.data() + t * part, part);
    });
  });
  return seconds / static_cast<double>(words.size() * sizeof(uint32_t));
}

double seconds_per_flop() {
  double flops = 0;
  const double seconds = seconds_per_call([&] {
    std::vector<double> done(thread_count());
    parallel_for(done.size(), [&](size_t t) {
      float value = 0.5f;
      done[t] = HWY_DYNAMIC_DISPATCH(multiply_add)(1000000, &value);
      kept = static_cast<uint32_t>(value);
    });
    flops = std::accumulate(done.begin(), done.end(), 0.0);
  });
  return seconds / flops;
}

}  // namespace sinkref
#endif  // HWY_ONCE
