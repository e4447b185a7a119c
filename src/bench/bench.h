#pragma once

#include <functional>
#include <string>
#include <vector>

#include "sinkref/model.h"

namespace sinkref {

/// Median seconds of each contender, which take turns `rounds` times so that a machine whose speed
/// drifts is the same to all. A contender returns the seconds of one unit of its work.
std::vector<double> alternate(const std::vector<std::function<double()>>& contenders,
                              size_t rounds);

/// Seconds of one call, from calls that take 50 ms together; starts after a pause in which the
/// threads of the contender before have stopped spinning.
double seconds_per_call(const std::function<void()>& call);

/// The limits of this machine with the threads in use, as units of work for alternate().
double seconds_per_read_byte();  ///< from memory, by plain vector loads of 512 MB
double seconds_per_flop();       ///< independent fp32 multiply-adds in registers, two flops each

/// One weight matrix of a model: y (rows, outputs) = x (rows, inputs) · wᵀ.
struct MatmulShape {
  std::string model, matrix;
  size_t outputs, inputs;
};

/// Shapes of "llama-2-7b", "llama-3-8b", "mistral-7b" or "smollm2", or of one matrix "4096x11008"
/// (outputs x inputs); InputError for other names. Shapes that two models share come once.
std::vector<MatmulShape> matmul_shapes(const std::string& names);

struct MatmulTiming {
  double seconds, openblas_seconds;  ///< of one product; OpenBLAS has the same weights in fp32
  double read_share;                 ///< weight bytes per second in units of the read bandwidth
  double peak_share;                 ///< of the FMA peak
  double rms_error, openblas_rms_error;  ///< against double, relative to the rms of the outputs
};

/// Weights lie outside the caches, as in a whole model: several copies are used in turn.
MatmulTiming time_matmul(const MatmulShape& shape, size_t rows, DType dtype,
                         const std::string& kernel, size_t rounds);

struct ModelTiming {
  double prefill_tokens_per_s = 0, decode_tokens_per_s = 0;  ///< 0 if not asked for
  double open_seconds, first_token_seconds;  ///< headers; then the first token with cold pages
  double read_gb_per_s, peak_gflop_per_s;
  double prefill_peak_share;  ///< 2 flops per weight and token (attention not counted)
  double decode_read_share;   ///< weight and cache bytes of one token at the read bandwidth
  size_t peak_rss_bytes;      ///< resident memory, mapped weights included
};

/// A prompt of `prefill` tokens (logits of its last), then `decode` tokens one at a time.
ModelTiming time_model(const std::string& path, const std::string& kernel, size_t chunk,
                       size_t prefill, size_t decode, size_t rounds);

}  // namespace sinkref
