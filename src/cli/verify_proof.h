#pragma once

#include <functional>
#include <string>
#include <vector>

#include "sinkref/forward.h"
#include "sinkref/trace.h"
#include "sinkref/verify.h"

namespace sinkref::cli {

/// A row on which the verdict rests, held against the real numbers that it should be.
struct RowProof {
  std::string why;  ///< "first", "worst"
  std::string tensor;
  std::vector<size_t> index;  ///< of the element shown, sequence first
  std::string left_out;       ///< why nothing was proved; empty if it was
  size_t bits = 0, undecided = 0;
  // The element.
  std::string enclosure;      ///< of the real number
  float rounded = 0;          ///< the real number to fp32
  double theirs = 0, ulps = 0;  ///< fp32 numbers between theirs and that
  bool truth_rounds = false;  ///< verify's float64 truth rounds to it
  // The row, against the real numbers from the tokens on, in verify's units.
  double error = 0, budget = 0;

  double budgets() const { return TokenDifference::ratio(error, budget); }
};

/// The row that is first beyond its budget and the one that comes nearest to its budget or lies farthest beyond it.
std::vector<RowProof> prove_rows(const Model& model, const TraceFile& candidate, const VerifyOptions& options,
                                 const VerifyResult& result, const std::function<void(double)>& share);

}  // namespace sinkref::cli
