#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "sinkref/forward.h"
#include "sinkref/interventions.h"
#include "sinkref/tokenizer.h"

// Multiple-choice tasks by log-likelihood, with the semantics of lm-evaluation-harness ("lm-eval",
// api/model.py and api/task.py): what is asked, where a choice begins, and how it is scored.

namespace sinkref {

// ------------------------------------------------------------------------------------ the items

/// One question: request i is log P(choices[i] | context_of(i)).
struct EvalItem {
  std::string task, id;
  std::string subject;  ///< of MMLU; empty elsewhere
  std::string context;
  std::vector<std::string> contexts;  ///< one per choice (WinoGrande), or empty
  std::vector<std::string> choices;
  size_t gold = 0;
  std::vector<int> labels;  ///< TruthfulQA mc2: which choices are true; then there is no gold
  std::vector<double> norm_chars, norm_bytes;  ///< divisors of acc_norm and acc_bytes, or empty
  std::string where;  ///< "file:line", for messages

  const std::string& context_of(size_t choice) const {
    return contexts.empty() ? context : contexts[choice];
  }
};

/// A file of items, one JSON object a line, plain or gzip.
struct EvalFile {
  std::string name;    ///< without its folder
  std::string sha256;  ///< of the bytes as they are, compressed or not
};

struct EvalData {
  std::vector<EvalItem> items;
  std::vector<EvalFile> files;
};

/// Which items of the files are asked.
struct EvalSelection {
  std::set<std::string> tasks;       ///< empty: all
  size_t limit = 0;                  ///< items per task, 0 for all
  std::optional<size_t> seed;        ///< with a limit: a random sample instead of the first
  std::string few_shot;              ///< file of prefixes by subject (MMLU 5-shot), or empty
};

/// Throws InputError with file and line for a line that is no such object, an id that comes twice in
/// a task, a file without items, or a task that is not there.
EvalData read_eval_data(const std::vector<std::string>& files, const EvalSelection& selection);

/// Work of each item in characters that its predecessor does not share: for shards and progress.
std::vector<double> eval_costs(const std::vector<EvalItem>& items);

/// The items [first, second) of shard `index` of `count`: consecutive, of about equal cost.
std::pair<size_t, size_t> shard_range(const std::vector<double>& costs, size_t index,
                                      size_t count);

// ------------------------------------------------------------------------------- log-likelihood

/// Tokens of one request; the choice is tokens[from …]. The model runs all but the last.
struct EvalRequest {
  std::vector<int> tokens;
  size_t from = 0;
  size_t truncated = 0;  ///< tokens that were left out before them
};

/// The requests of one item, by lm-eval's rules (TemplateLM._encode_pair): blanks at the end of the
/// context go to the choice; the choice's tokens are those of context + choice beyond the number
/// that the context alone has; an empty context is BOS (or EOS); of what is too long the last
/// max_positions + 1 tokens are kept. Throws InputError for a choice without tokens, or with more
/// than max_positions.
std::vector<EvalRequest> encode_item(const EvalItem& item, const Tokenizer& tokenizer,
                                     BosPolicy bos, size_t max_positions);

/// Hooks the logits: log_probs[i] = ln P(targets[i]) at position before + i, for every position that is run.
template <class T>
void add_log_probs(const Kernels<T>& kernels, const int* targets, size_t before, double* log_probs, Hooks<T>& hooks);

struct EvalScore {
  std::vector<double> ll;      ///< per choice: sum over its tokens, in order, in double
  std::vector<uint8_t> greedy; ///< per choice: every token was the argmax
};

/// Scores items in batches. What requests share is run once, wherever they part: a batch is one pass
/// over the tree of its beginnings, and its last item is kept for the beginning of the next batch. That
/// changes no bit, because no bit depends on how a sequence is split.
template <class T>
class EvalScorer {
 public:
  /// `patch` and `ablation` may be empty.
  EvalScorer(const Model& model, RunOptions options, std::vector<Neurons> patch,
             std::vector<Neurons> ablation);

  std::vector<EvalScore> score(const std::vector<std::vector<EvalRequest>>& items);

  /// Rows that were run, of the requests' tokens in all: what the sharing saved.
  size_t rows_run() const { return rows_run_; }

 private:
  /// One choice of one item.
  struct Request {
    std::span<const int> input;  ///< of the model: all tokens but the last
    const EvalRequest* all;
    size_t from_stem;  ///< of its beginning, what the stem has
    size_t item, choice;
  };
  /// A token whose log-probability is wanted: the logits' row is `position` of a branch.
  struct Target {
    size_t position;
    int token;
    size_t item, choice;
  };
  /// Tokens [begin, end) of the requests that share them, after those of its parent.
  struct Branch {
    std::span<const int> tokens;  ///< from position 0 on
    size_t begin;
    std::optional<size_t> parent;  ///< an earlier branch; none: the stem if begin > 0
    std::vector<Target> targets;
  };

  void score_pass(std::span<Request> requests, std::vector<EvalScore>& scores);
  void grow_sorted(std::span<Request> requests, size_t begin);
  void grow(std::span<const Request> requests, size_t begin, std::optional<size_t> parent);
  void run(std::vector<EvalScore>& scores);
  void keep_stem();
  void read_logits(const Activation<T>& logits, std::vector<EvalScore>& scores);

  Forward<T> forward_;
  const Kernels<T>& kernels_;
  std::vector<Neurons> patch_, ablation_;
  std::vector<int> stem_tokens_;  ///< what has been run, for the next batch
  Sequence<T> stem_;
  std::vector<Branch> branches_;  ///< of the current batch
  std::vector<Sequence<T>> sequences_;
  size_t rows_run_ = 0;
};

extern template class EvalScorer<float>;
extern template class EvalScorer<double>;

/// Rows of one batch, which a chunk of as many tokens runs in one step.
inline constexpr size_t eval_batch_rows = 512;

/// Requests of one pass at most, so that memory stays bounded however many choices an item has: each
/// may have a cache of its own.
inline constexpr size_t eval_pass_requests = 64;

/// How many of the first items make one batch: wide enough for the matmuls.
size_t batch_items(const std::vector<std::vector<EvalRequest>>& items);

// --------------------------------------------------------------------------------------- metrics

/// Scores of one item under lm-eval's names, in the order of their report: acc; acc_norm and
/// acc_bytes where the item has divisors. With `labels`, acc is the probability mass of the true
/// choices (mc2); else 1 if the first largest is the gold choice.
using Metrics = std::vector<std::pair<std::string, double>>;
Metrics item_metrics(const EvalItem& item, const std::vector<double>& ll);

/// A mean with its standard error as lm-eval has it: sample deviation / √n; over subjects (MMLU)
/// pooled by size. No error for fewer than two items.
struct Estimate {
  double mean = 0;
  std::optional<double> stderr_;
  size_t n = 0;
};
Estimate estimate(const std::vector<double>& values, const std::vector<std::string>& subjects);

/// The same items twice. The standard error is that of the differences; `worse` and `better` count
/// the discordant items, `p` is McNemar's exact two-sided test (nothing if the metric is no 0/1).
struct Paired {
  Estimate difference;
  size_t better = 0, worse = 0;
  std::optional<double> p;
};
Paired paired(const std::vector<double>& original, const std::vector<double>& patched,
              const std::vector<std::string>& subjects);

}  // namespace sinkref
