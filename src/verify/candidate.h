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
  /// Whether the trace holds this position: all do, but for those of `sinkref trace --positions`.
  bool holds(size_t position) const { return place_of_[position] != not_held; }
  bool holds_all() const { return positions_.size() == longest_; }
  const std::vector<size_t>& positions() const { return positions_; }  ///< in the trace's order
  /// Where a position that the trace holds lies in the tensors.
  size_t place(size_t position) const { return place_of_[position]; }
  std::string metadata(const std::string& key) const;  ///< or ""
  const TraceFile& file() const { return file_; }

  /// The values of one position that the trace holds.
  void row(Hook hook, size_t sequence, size_t position, double* out) const;
  /// Scores or pattern of one query and head over keys [0, keys). A score of -65504 (fp16's lowest)
  /// or less counts as masked and is given as -inf.
  void attention_row(Hook hook, size_t sequence, size_t head, size_t query, size_t keys,
                     double* out) const;

 private:
  const StoredTensor* slot(Hook hook) const {
    return slots_[hook_index(hook, config_.layers)];
  }
  static constexpr size_t not_held = SIZE_MAX;
  void read_tokens(const std::optional<std::vector<int>>& tokens);
  void read_positions();
  void find_tensors();
  void find_holes(const std::string& require);

  const TraceFile& file_;
  const ModelConfig& config_;
  std::vector<std::vector<int>> tokens_;
  size_t longest_ = 0;
  std::vector<size_t> positions_, place_of_;  // the latter by position
  std::vector<const StoredTensor*> slots_;
  std::vector<Hook> hooks_;
  std::vector<std::string> problems_;
};

}  // namespace sinkref
