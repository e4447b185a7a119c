#pragma once

#include <stdexcept>
#include <string>

namespace sinkref {

/// Bad input or bad usage: the program ends with exit code 2 and prints the message on one line.
/// A message names the file (or option), what was expected, what was found, and the remedy:
///   "model/config.json: hidden_act is \"gelu\", expected \"silu\"; only LLaMA/Mistral checkpoints
///   run"
/// Anything else that is thrown is a defect of sinkref itself (exit code 3).
class InputError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Throws InputError "WHERE: PROBLEM; REMEDY". `problem` says what was found and what was expected.
[[noreturn]] void refuse(const std::string& where, const std::string& problem,
                         const std::string& remedy = "correct the file or get it again");

/// Text from a file made safe for a one-line message: control characters and invalid UTF-8 are
/// escaped, long text is cut.
std::string quoted(const std::string& text);
// Without these, argument-dependent lookup would find std::quoted for such arguments.
inline std::string quoted(std::string& text) {
  return quoted(static_cast<const std::string&>(text));
}
inline std::string quoted(const char* text) {
  return quoted(std::string(text));
}

}  // namespace sinkref
