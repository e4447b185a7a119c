#pragma once

#include <array>
#include <vector>

#include "sinkref/verify.h"

namespace sinkref {

/// The first-order rounding error that one step adds, as a standard deviation per value, from the
/// step's own float64 inputs. u is the unit roundoff, 2^-24 in fp32.
///
///   matmul of n terms   u² [ (n/8 + 1) Σ(x w)² + n/12 y² ]: every addition of a plain sequential loop
///                       rounds its partial sum, which grows as √k (terms of random sign) or as k
///   q·k, pattern·v      the same with their terms; of pattern·v at least what such a loop is off by in
///                       fact: the terms of a run of one token are alike, are rounded alike, and their
///                       errors add up
///   RMSNorm             3u of the scale, 1.5u of the quotient (1u more for the weight, in the matmul)
///   RoPE                u of the pair; and the frequency off by (i + 2)u at index i, as a table made
///                       by repeated multiplication is: an angle error that grows with the position
///   softmax             (3 + |s - max|) u of the probability
///   silu(gate)·up       3u,  residual addition u/2
///
/// fp16 and bf16 add u_h/√3 of every stored value and, where the checkpoint is wider, of every weight;
/// a narrow cache adds it to queries, keys, probabilities and values.
class Rounding {
 public:
  Rounding(const Model& model, const std::string& kernel, CandidateArithmetic arithmetic);

  /// Before a step of `count` positions from `first` on. The first two sequences are followed:
  /// rows 0 … 2·count-1 of every activation.
  void begin(size_t first, size_t count);

  /// Standard deviations (followed rows, width) of what the step to this hook adds. Not for
  /// attention hooks.
  const Matrix<float>& step(const Activation<double>& a);
  /// The values that the next steps start from; call it after step() and any replacement.
  void observe(const Activation<double>& a);

  /// Scores of one head and some positions of one followed sequence, (a.rows, a.width).
  const Matrix<float>& scores(const Activation<double>& a);
  /// Standard deviation of one probability, whose score is `below` under the row's largest.
  double pattern(double probability, double below) const;
  /// Call it for the pattern of every head of followed sequences; step() at Z needs it.
  void observe_pattern(const Activation<double>& a);

  /// Standard deviation of the angle of frequency `i` at `position`.
  double angle(size_t i, size_t position) const;

 private:
  void product(const Activation<double>& a);
  void relative(const Activation<double>& a, double factor);
  void rotated(const Activation<double>& a);
  void attended(const Activation<double>& a);
  const std::vector<float>& norm_weight(Hook hook);
  void keep_squares(const Activation<double>& a, Matrix<float>& into);
  void keep_values(const Activation<double>& a);
  void store_keys(const Activation<double>& a);

  const Model& model_;
  const Kernels<float>& kernels_;
  NumberType type_;
  double half_ = 0, half_cache_ = 0;  ///< u_h/√3, or 0 in fp32
  size_t first_ = 0, count_ = 0;
  Matrix<float> sigma_, score_sigma_;
  Matrix<float> x_;                  ///< squares of the inputs of the next matmuls
  Matrix<float> queries_;            ///< squares
  Matrix<float> v_, z_terms_, z_loop_;  ///< values; Σ (p v)²; Σ p v in a plain fp32 loop
  std::vector<float> final_norm_;
  std::vector<KvCache<float>> caches_;  ///< squares of keys, and values; of each followed sequence
};

}  // namespace sinkref
