#pragma once

#include <string>
#include <vector>

#include "sinkref/forward.h"
#include "sinkref/trace.h"

namespace sinkref {

/// The distance of a set of rows from the truth.
struct Error {
  double rms = 0;      ///< root mean square over all elements
  double row_rms = 0;  ///< the same with each row divided by its truth's rms: a massive row would
                       ///< hide all others
};

/// One tensor of a golden file: ours and Hugging Face's error against its float64 truth.
struct GoldenTensor {
  std::string name;
  Error ours;
  Error floor;      ///< the largest of several equally valid HF fp32 runs
  bool within = false;  ///< by golden_allowance, whole and by row; no NaN on either side
};

struct GoldenResult {
  std::string file;
  std::vector<GoldenTensor> tensors;
  size_t argmax_compared = 0;   ///< rows whose float64 margin exceeds twice HF's largest error
  size_t argmax_equal = 0;
  size_t generated = 0, generated_equal = 0;  ///< greedy tokens
  bool inv_freq_equal = false;
  bool weights_equal = false;   ///< the golden's weights_sha256 is this model's
  double worst_ratio = 0;       ///< max over tensors of ours / floor
  bool agrees = false;          ///< all of the above hold
};

/// At most this times the floor. One HF run's error varies by tens of percent with the order of its
/// sums; the floor is already the largest of several. A tensor of one number may be half a step of
/// fp32's grid further away: the rounding that storing it costs any fp32 evaluation.
inline constexpr double golden_allowance = 1.2;

/// Throws InputError if the file is not a whole golden of this model; runs nothing.
void require_golden_of(const Model& model, const std::filesystem::path& golden);

/// What compare_with_golden() is worth (Progress).
double golden_work(const Model& model, const std::filesystem::path& golden);

/// Runs the golden's tokens (patched if it says so) and compares every tensor in it.
/// Throws InputError if the file is not a golden or belongs to another model.
GoldenResult compare_with_golden(const Model& model, const std::string& kernel,
                                 const std::filesystem::path& golden);

/// Errors of `ours` against `truth`, both of whole rows of `width`. Where the truth is -inf (a
/// masked score) ours must be too, and nothing is added. NaN on either side, or an infinity on one,
/// gives an infinite error. `common_scale`: divide rows by the whole tensor's rms instead (scores,
/// which can cancel to nothing).
Error error_against(const std::vector<double>& truth, const std::vector<double>& ours, size_t width,
                    bool common_scale);

}  // namespace sinkref
