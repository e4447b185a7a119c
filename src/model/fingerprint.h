#pragma once

#include <map>
#include <string>

#include "sinkref/hooks.h"
#include "sinkref/model.h"

namespace sinkref {

/// A short name for the bits of a run, the same on every machine:
///     arithmetic_version - first 12 digits of the model's weights_sha256 - first 16 digits of the
///     SHA-256 of the prompt's logits
/// The logits are those of every position of every prompt, sequence by sequence, as they lie in
/// memory (fp32, or fp64 with --precision fp64). Tokens, patch and softmax have their say through
/// them; kernel, threads, chunks and what is generated afterwards have none.
template <class T>
class Fingerprint {
 public:
  /// Watches the logits of the prompt. Must outlive the hooks' use.
  void attach(Hooks<T>& hooks);
  /// After the run. Reads all the weights.
  std::string text(const Model& model) const;
  /// The same with the model's weights_sha256 known already.
  std::string text(const std::string& weights_sha256) const;

 private:
  std::map<std::pair<size_t, size_t>, std::string> rows_;  // (sequence, position) -> SHA-256
};

extern template class Fingerprint<float>;
extern template class Fingerprint<double>;

}  // namespace sinkref
