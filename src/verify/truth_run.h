#pragma once

#include <array>
#include <vector>

#include "sinkref/verify.h"
#include "verify/candidate.h"
#include "verify/rounding.h"
#include "verify/row.h"

namespace sinkref {

/// Runs one sequence of the candidate's tokens in fp32 and, some positions at a time, as a batch of
/// float64 copies: the truth, the local copy that takes over their values at every hook, and copies
/// of both that are disturbed by the rounding of every step. Memory is bounded by the step.
class TruthRun {
 public:
  TruthRun(const Model& model, const Candidate& candidate, const VerifyOptions& options,
           CandidateArithmetic arithmetic);

  void run(size_t sequence);

  std::vector<TensorDifference>& tensors() { return tensors_; }
  Budget budget() const;

 private:
  double work_of_step(size_t first, size_t count) const;
  double work_of(size_t tokens) const;
  size_t early_copies() const;
  size_t step_at(size_t first) const;

  static constexpr size_t step_positions = 64;
  static constexpr size_t draws = 2;
  /// A massive activation's error is one number, of which two draws say little, and the first
  /// positions have no earlier ones to learn from: there each copy is drawn so many times more.
  static constexpr size_t early_positions = 4, early_draws = 14;
  /// Then the local draws, the truth's, and those of the first positions.
  enum Role : size_t { truth = 0, local = 1, disturbed = 2 };

  /// What is known of one hook while a sequence runs.
  struct State {
    TensorDifference* result = nullptr;  // where the candidate has it
    RunningBudget budget;
  };
  /// Scores or pattern of one layer and step: of the truth and the local copy, before replacement.
  struct Kept {
    std::array<std::vector<Matrix<double>>, 2> heads;  // [head] (positions, keys)
    std::vector<Noise> noise;                          // by position, largest of the heads
  };

  size_t role_base(size_t role) const;  // whose values a copy was made from

  void attach_ours(Hooks<float>& hooks);
  void attach_copies(Hooks<double>& hooks);

  // One step of all copies: disturb, bound, compare with theirs, go on from theirs.
  void on_step(const Activation<double>& a);
  void disturb(const Activation<double>& a, const Matrix<float>& sigma);
  void disturb_angles(const Activation<double>& a);
  std::vector<Noise> budgets_at(const Activation<double>& a, const Matrix<float>& sigma);
  Noise noise_of(const Activation<double>& a, const Matrix<float>& sigma, size_t t) const;
  std::vector<size_t> held_in_step() const;  ///< positions of the step that their trace has, from its first
  void judge_and_replace(const Activation<double>& a, const std::vector<Noise>& budgets);

  // The same for scores and pattern, which come head by head (truth_attention.cpp).
  void on_scores(const Activation<double>& a);
  void on_pattern(const Activation<double>& a);
  void keep(const Activation<double>& a, Kept& kept, double unseen);
  void keep_score_sigma(const Activation<double>& a, const Matrix<float>& sigma);
  void add_score_noise(const double* p, const float* scores, size_t width, float* sigma) const;
  void note_floor(const Activation<double>& a, Kept& kept, const Matrix<float>& sigma);
  void note_noise(const Activation<double>& a, Kept& kept);
  void replace_attention(const Activation<double>& a);
  void judge_attention(HookPoint point, size_t layer, Kept& kept);

  const Model& model_;
  const ModelConfig& config_;
  const Candidate& candidate_;
  const VerifyOptions& options_;
  Rounding rounding_;
  size_t local_draws_ = draws, lasting_;  // disturbed local copies; all that run to the end
  size_t copies_ = 0;                     // in the present step
  std::vector<TensorDifference> tensors_;
  std::vector<State> states_;                  // by causal index
  std::vector<std::vector<Matrix<float>>> ours_;  // by causal index, then head
  std::vector<Noise> residual_noise_;          // by position of the step: of its latest residual
  Kept scores_, pattern_;
  std::array<std::vector<Matrix<float>>, 2> score_sigma_;  // of the truth and the local copy
  size_t sequence_ = 0, first_ = 0, count_ = 0;
  double done_ = 0, all_ = 0;  // of the work, for VerifyOptions::share
  std::vector<int> tokens_;
};

}  // namespace sinkref
