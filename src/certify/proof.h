#pragma once

#include <stdexcept>
#include <string>

namespace sinkref {

/// Of a statement about real numbers: it holds for all numbers in the balls, for none of them, or for some.
enum class Proof { proved, disproved, undecided };

inline const char* proof_name(Proof proof) {
  switch (proof) {
    case Proof::proved: return "proved";
    case Proof::disproved: return "disproved";
    case Proof::undecided: return "undecided";
  }
  throw std::logic_error("there is no such proof");
}

struct ClaimResult {
  std::string text;
  Proof proof;
  std::string left, right;  ///< what was compared, enclosed
};

}  // namespace sinkref
