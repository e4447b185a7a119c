#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "sinkref/hooks.h"
#include "sinkref/trace.h"
#include "sinkref/verify.h"

namespace sinkref {

/// Another implementation's trace, checked against the shapes of a model.
class Candidate {
 public:
  /// `require`: globs of what must be there, or "". Throws InputError if there are no tokens or
  /// they cannot be run.
  Candidate(const TraceFile& file, const ModelConfig& config, const std::string& require,
            const std::optional<std::vector<int>>& tokens);

  const std::vector<std::vector<int>>& tokens() const { return tokens_; }
  /// Extra, misshapen and missing tensors, each in a sentence.
  const std::vector<std::string>& problems() const { return problems_; }
  const std::vector<Hook>& hooks() const { return hooks_; }  ///< supplied, in causal order
  bool has(Hook hook) const { return slot(hook) != nullptr; }
  std::string metadata(const std::string& key) const;  ///< or ""
  const TraceFile& file() const { return file_; }

  /// The values of one position.
  void row(Hook hook, size_t sequence, size_t position, double* out) const;
  /// Scores or pattern of one query and head over keys [0, keys). A score of -65504 (fp16's lowest)
  /// or less counts as masked and is given as -inf.
  void attention_row(Hook hook, size_t sequence, size_t head, size_t query, size_t keys,
                     double* out) const;

 private:
  const StoredTensor* slot(Hook hook) const {
    return slots_[hook_index(hook, config_.layers)];
  }
  void read_tokens(const std::optional<std::vector<int>>& tokens);
  void find_tensors();
  void find_holes(const std::string& require);

  const TraceFile& file_;
  const ModelConfig& config_;
  std::vector<std::vector<int>> tokens_;
  size_t longest_ = 0;
  std::vector<const StoredTensor*> slots_;
  std::vector<Hook> hooks_;
  std::vector<std::string> problems_;
};

}  // namespace sinkref
