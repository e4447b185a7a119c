#include <sys/resource.h>

#include <chrono>

#include "bench/bench.h"
#include "sinkref/error.h"
#include "sinkref/forward.h"

namespace sinkref {

namespace {

using Clock = std::chrono::steady_clock;

double since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// The largest resident size so far.
size_t peak_rss_bytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<size_t>(usage.ru_maxrss) * 1024;
}

/// Tokens without a pattern; which ones they are has no influence on the time.
std::vector<int> some_tokens(size_t count, size_t vocab_size) {
  std::vector<int> tokens(count);
  for (size_t i = 0; i < count; ++i)
    tokens[i] = static_cast<int>((i * 7919 + i * i * 31 + 1) % vocab_size);
  return tokens;
}

/// Numbers and bytes of the weights that every token reads. The embedding's rows are not among
/// them, unless it is the head as well.
struct Read {
  double weights = 0, bytes = 0;
};
Read read_per_token(const Model& model) {
  Read read;
  const auto add = [&](const StoredMatrix& w) {
    read.weights += static_cast<double>(w.rows) * static_cast<double>(w.cols);
    read.bytes += static_cast<double>(w.rows) * static_cast<double>(w.row_bytes());
  };
  for (size_t layer = 0; layer < model.config().layers; ++layer) {
    const LayerWeights& w = model.layer(layer);
    for (const StoredMatrix* matrix : {&w.wq, &w.wk, &w.wv, &w.wo, &w.w_gate, &w.w_up, &w.w_down})
      add(*matrix);
  }
  add(model.lm_head());
  return read;
}

}  // namespace

ModelTiming time_model(const std::string& path, const std::string& kernel, size_t chunk,
                       size_t prefill, size_t decode, size_t rounds) {
  ModelTiming result{};
  Clock::time_point start = Clock::now();
  const Model model = Model::open(path);
  result.open_seconds = since(start);
  const ModelConfig& c = model.config();
  RunOptions options;
  options.kernel = kernel;
  options.chunk = chunk;
  Forward<float> forward(model, options);
  Hooks<float> none;
  const size_t prompt = std::max<size_t>(prefill, 1);
  const std::vector<int> tokens = some_tokens(prompt + decode, c.vocab_size);
  check_tokens(model, tokens);

  start = Clock::now();
  {
    std::vector<Sequence<float>> one;
    one.push_back(forward.start({tokens[0]}));
    forward.run(one, none);
  }
  result.first_token_seconds = since(start);

  std::vector<Sequence<float>> batch;
  const auto run_prompt = [&] {
    batch.clear();
    batch.push_back(forward.start({tokens.begin(), tokens.begin() + static_cast<long>(prompt)}));
    batch[0].cache.reserve(tokens.size());  // as generate() does: decode must not have to grow it
    const Clock::time_point begin = Clock::now();
    forward.run(batch, none);
    return since(begin) / static_cast<double>(prompt);
  };
  const auto run_decode = [&] {
    const Clock::time_point begin = Clock::now();
    for (size_t i = prompt; i < tokens.size(); ++i) {
      batch[0].pending = {tokens[i]};
      forward.run(batch, none, false);
    }
    return decode == 0 ? 0 : since(begin) / static_cast<double>(decode);
  };
  run_prompt();
  run_decode();
  result.peak_rss_bytes = peak_rss_bytes();  // before the limits are measured in memory of their own
  const std::vector<double> t =
      alternate({run_prompt, run_decode, seconds_per_read_byte, seconds_per_flop}, rounds);

  const Read read = read_per_token(model);
  const double cache = static_cast<double>(c.cache_bytes_per_token()) *
                       (static_cast<double>(prompt) + static_cast<double>(decode) / 2);
  // The head runs for the last token of a prompt only.
  const double head = static_cast<double>(model.lm_head().rows) *
                      static_cast<double>(model.lm_head().cols);
  const double per_token = read.weights - head + head / static_cast<double>(prompt);
  result.read_gb_per_s = 1e-9 / t[2];
  result.peak_gflop_per_s = 1e-9 / t[3];
  if (prefill > 0) {
    result.prefill_tokens_per_s = 1 / t[0];
    result.prefill_peak_share = 2 * per_token * t[3] / t[0];
  }
  if (decode > 0) {
    result.decode_tokens_per_s = 1 / t[1];
    result.decode_read_share = (read.bytes + cache) * t[2] / t[1];
  }
  return result;
}

}  // namespace sinkref
