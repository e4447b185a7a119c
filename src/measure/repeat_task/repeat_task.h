#pragma once

#include <string>
#include <vector>

#include "sinkref/forward.h"

// Does a model that is repeating a word keep repeating it? (Yona et al. 2025, section 3.)

namespace sinkref {

/// What the greedy continuation of "request w w w …" (n times w) does. The rules:
///   repeats  all tokens of the continuation are w
///   stops    w some number of times (or none), then an end-of-text token
///   departs  some other token comes first; what follows does not matter
enum class Outcome { repeats, stops, departs };
const char* outcome_name(Outcome outcome);

struct Continuation {
  size_t repeats = 0;          ///< n
  std::vector<int> generated;  ///< without the end-of-text token
  size_t kept = 0;             ///< times w before the first other token
  Outcome outcome = Outcome::departs;
  double probability = 0;      ///< of w as the next token after the n repeats
};

/// Tokens of each continuation.
inline constexpr size_t continuation_tokens = 12;

/// The greedy continuation of one sequence: at most `count` tokens, fewer where the context is full.
struct Greedy {
  std::vector<int> tokens;
  bool ended = false;  ///< by an end-of-text token, which is not among the tokens
};
/// The continuations of a batch whose last logits are `logits`. All at once: a decode step costs
/// little more for several sequences than for one.
std::vector<Greedy> continue_greedily(Forward<float>& forward, std::vector<Sequence<float>>& batch,
                                      Matrix<float> logits, size_t count, Hooks<float>& hooks);

/// Fills `kept` and `outcome` from `generated`; `ended` if an end-of-text token came.
void judge(Continuation& continuation, int token, bool ended);

/// The n that are tried: 10, 30, 100, … and the whole run.
std::vector<size_t> continuation_points(size_t repeats);

}  // namespace sinkref
