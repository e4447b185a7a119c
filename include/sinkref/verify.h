#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "sinkref/forward.h"
#include "sinkref/interventions.h"
#include "sinkref/trace.h"

namespace sinkref {

// verify: where does another implementation's run leave the truth by more than rounding can explain?
//
// The truth is this model in float64. Beside it runs the *local* copy: at every hook their value is
// compared and then put in the place of ours, so that each step is judged from their own input, and
// one early slip does not paint everything after it red. What rounding may do comes from more copies,
// disturbed after every step by the first-order rounding error of that step (src/verify/rounding.h).

/// How numbers are stored by the candidate between its steps.
enum class NumberType { fp32, fp16, bf16 };
const char* number_type_name(NumberType type);

struct CandidateArithmetic {
  NumberType activations = NumberType::fp32;  ///< activations, and weights unless stored so
  NumberType cache = NumberType::fp32;        ///< keys, values, and what meets them in a product
};

/// How far rounding may take a tensor at each position: the row's rms error in units of the true
/// row's rms (attention scores: in absolute terms, as only their differences matter).
class Budget {
 public:
  struct Step {
    size_t position;  ///< from here on
    double value;
  };
  using Steps = std::vector<Step>;
  struct Entry {
    Steps local, propagated;
  };

  /// {"tensors": {GLOB: {"local": [[position, value], …] or value, "propagated": …}}}, as
  /// write() makes it. A glob that matches no hook of the model, an unknown key or a value that is
  /// not a number of at least 0 is an InputError.
  static Budget read(const std::filesystem::path& file, size_t layers);
  std::string text(const std::map<std::string, std::string>& provenance) const;

  /// An exact name wins over a glob, and a longer glob over a shorter one; nothing if none matches.
  const Entry* find(const std::string& name) const;
  void set(const std::string& name, Entry entry) { entries_[name] = std::move(entry); }
  bool empty() const { return entries_.empty(); }
  static double at(const Steps& steps, size_t position);

 private:
  std::map<std::string, Entry> entries_;
};

/// Times the largest modelled rounding error seen at this or an earlier position: the budget.
/// The model is of a plain sequential fp32 loop. Two draws of it are taken, sixteen at the first
/// tokens.
inline constexpr double budget_factor = 4;

/// One row: a tensor at one position (attention: the worst head).
struct TokenDifference {
  size_t sequence = 0, token = 0;
  double local = 0, local_budget = 0;            ///< row error from their own input, and its bound
  double propagated = 0, propagated_budget = 0;  ///< row error against the truth
  double ours = 0;                               ///< sinkref's own fp32 error against the truth
  double max_abs = 0;                            ///< largest |theirs - expected|, at `index`
  std::vector<size_t> index;                     ///< in the tensor, sequence first
  double our_value = 0, their_value = 0;         ///< fp32 run and theirs, at `index`
  double truth = 0, expected = 0;                ///< float64, from the tokens and from their input
  double ulps = 0;                               ///< fp32 numbers between expected and theirs
  double relative_l2 = 0;                        ///< ‖theirs - truth‖ / ‖truth‖
  size_t over = 0;                               ///< elements further off than their share of it
  size_t nan = 0, inf = 0;                       ///< in theirs, where the truth is finite

  double local_ratio() const { return ratio(local, local_budget); }
  double propagated_ratio() const { return ratio(propagated, propagated_budget); }
  static double ratio(double error, double budget);
};

struct TensorDifference {
  std::string name;
  Hook hook;
  std::vector<TokenDifference> tokens;  ///< in order of sequence and position
  size_t tokens_over_local = 0, tokens_over_propagated = 0;
  const TokenDifference* first_over() const;  ///< local first; nothing if within both budgets
  const TokenDifference& worst() const;       ///< by the larger of the two ratios
};

/// What explains the difference, with the evidence.
struct Diagnosis {
  std::string fault;      ///< a stable slug: "rope_base", "norm_eps", …
  std::string certainty;  ///< "certain": with it every tensor agrees within rounding, and no other
                          ///< does that; "likely"; or "none" when nothing that was tried fits
  std::string detail;     ///< one sentence
};

struct VerifyOptions {
  std::string kernel = "auto";
  Softmax softmax = Softmax::standard;
  std::vector<Neurons> patch, ablation;
  std::optional<NumberType> activations, cache;  ///< nothing: as the trace's metadata say
  std::string require;                           ///< globs of tensors that must be there
  std::optional<std::vector<int>> tokens;        ///< what should have been run
  std::optional<int> bos;                        ///< for messages about tokens
  Budget budget;                                 ///< entries here replace the derived ones
  bool diagnose = true;
  std::function<void(const std::string&)> say;   ///< what is being done, or nothing
  /// How much of the truth is computed, from 0 to 1, and the same in words; or nothing.
  std::function<void(double, const std::string&)> share;
};

struct VerifyResult {
  bool agrees = false;
  std::vector<std::string> problems;  ///< each is a failure by itself
  std::vector<std::string> notes;     ///< worth knowing, no failure
  std::vector<TensorDifference> tensors;  ///< in causal order
  std::optional<size_t> first;            ///< index into tensors: the first beyond its budget
  std::optional<size_t> wrong_token;      ///< position of the first token that is not the expected
  std::vector<Diagnosis> diagnosis;
  std::string step;  ///< what the step to the first tensor computes; "" where nothing differs
  std::string next;  ///< what to do about it
  CandidateArithmetic arithmetic;
  Budget budget;  ///< as used
};

/// Runs the candidate's tokens and compares all it supplies. Throws InputError for a candidate
/// that cannot be compared at all (no tokens, another vocabulary).
VerifyResult verify_candidate(const Model& model, const TraceFile& candidate,
                              const VerifyOptions& options);

/// Two traces, tensor by tensor: bits if `budget` is empty (or `exact`), else propagated budgets.
VerifyResult verify_traces(const TraceFile& reference, const TraceFile& candidate,
                           const Budget& budget, bool exact);

}  // namespace sinkref
