#pragma once

#include <string>
#include <vector>

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

/// Fills `kept` and `outcome` from `generated`; `ended` if an end-of-text token came.
void judge(Continuation& continuation, int token, bool ended);

/// The n that are tried: 10, 30, 100, … and the whole run.
std::vector<size_t> continuation_points(size_t repeats);

}  // namespace sinkref
