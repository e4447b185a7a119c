#pragma once

#include <memory>
#include <string>
#include <vector>

#include "certify/ball.h"
#include "certify/certify.h"

namespace sinkref {

/// Statements about activations, to be proved or disproved. One a line, "#" begins a remark:
///
///     claim     = side ("<" | "<=" | ">" | ">=") side  |  "argmax" "(" side ")" "=" index
///     side      = term {("+" | "-") term}
///     term      = factor {("*" | "/") factor}
///     factor    = decimal | "-" factor | "(" side ")" | ("norm" | "sum" | "abs") "(" side ")" | tensor
///               | "norms" "(" tensor ")"
///     tensor    = ["original:"] hook ["[" range {"," range} "]"]
///     range     = index | [index] ":" [index]
///
/// Indices are those of a trace's tensor without its batch; a negative one counts from the end, ranges that are
/// missing at the end are whole. Sides are lists of numbers, which are worked with element by element, a single number
/// with each; a relation claims all of them. norms() is the list of the norms of a tensor's rows, one for each position
/// (of scores and pattern, each head and query). "original:" is the same prompt without --patch and --ablate.
class Claims {
 public:
  /// Throws InputError that names the line for what is not a claim of this model and prompt.
  Claims(const std::string& text, const std::string& file, const ModelConfig& config, size_t positions);
  ~Claims();

  /// The hooks that they speak of, in the run as asked for or the original one.
  std::vector<Hook> hooks(bool original) const;
  void see(bool original, Hook hook, size_t head, size_t first, const Matrix<Ball>& values);
  /// After the runs.
  std::vector<ClaimResult> results() const;

 private:
  struct Tensor;
  struct Claim;
  class Parser;
  std::vector<std::unique_ptr<Tensor>> tensors_;
  std::vector<Claim> claims_;
};

}  // namespace sinkref
