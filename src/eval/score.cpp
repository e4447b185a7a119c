// Log-likelihoods of many requests at the least work: what they share is run once.

#include <algorithm>

#include "arithmetic/log_softmax.h"
#include "base/threads.h"
#include "eval/eval.h"

namespace sinkref {

namespace {

// So many rows saved are worth a branch of their own.
constexpr size_t worthwhile = 8;
// What is kept in a cache's KeptValues belongs to positions 0 and 1: no branch ends between them.
constexpr size_t kept_positions = 2;

size_t shared(std::span<const int> a, std::span<const int> b) {
  return static_cast<size_t>(
      std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first - a.begin());
}

/// What the model is run on: all tokens but the last.
std::span<const int> input(const EvalRequest& request) {
  return std::span(request.tokens).first(request.tokens.size() - 1);
}

/// The beginning that all choices of an item have in common.
std::span<const int> trunk(const std::vector<EvalRequest>& requests) {
  std::span<const int> common = input(requests[0]);
  for (const EvalRequest& request : requests)
    common = common.first(shared(common, input(request)));
  return common;
}

}  // namespace

size_t batch_items(const std::vector<std::vector<EvalRequest>>& items) {
  size_t rows = 0;
  std::span<const int> before;
  for (size_t i = 0; i < items.size(); ++i) {
    const std::span<const int> own = trunk(items[i]);
    rows += own.size() - shared(own, before);
    for (const EvalRequest& request : items[i]) rows += input(request).size() - own.size();
    if (rows >= eval_batch_rows) return i + 1;
    before = own;
  }
  return items.size();
}

template <class T>
EvalScorer<T>::EvalScorer(const Model& model, RunOptions options, std::vector<Neurons> patch,
                          std::vector<Neurons> ablation)
    : forward_(model, without_progress(options), {0, SIZE_MAX, LogitRows::hooked}),
      kernels_(find_kernels<T>(options.kernel)),
      patch_(std::move(patch)),
      ablation_(std::move(ablation)),
      stem_{KvCache<T>(model.config(), model.config().layers, 0), {}} {}

template <class T>
std::vector<EvalScore> EvalScorer<T>::score(const std::vector<std::vector<EvalRequest>>& items) {
  std::vector<EvalScore> scores;
  std::vector<Request> requests;
  for (size_t item = 0; item < items.size(); ++item) {
    scores.push_back({std::vector<double>(items[item].size()), std::vector<uint8_t>(items[item].size(), 1)});
    for (size_t choice = 0; choice < items[item].size(); ++choice) {
      const EvalRequest& all = items[item][choice];
      requests.push_back({input(all), &all, 0, item, choice});
    }
  }
  for (size_t begin = 0; begin < requests.size(); begin += eval_pass_requests)
    score_pass(std::span(requests).subspan(begin, std::min(eval_pass_requests, requests.size() - begin)),
               scores);
  return scores;
}

template <class T>
void EvalScorer<T>::score_pass(std::span<Request> requests, std::vector<EvalScore>& scores) {
  size_t longest = 0;
  for (Request& r : requests) {
    // Rows whose logits are wanted are run, even where the stem has them.
    r.from_stem = std::min(shared(stem_tokens_, r.input), r.all->from - 1);
    longest = std::max(longest, r.from_stem);
  }
  const auto others = std::stable_partition(requests.begin(), requests.end(), [&](const Request& r) {
    return r.from_stem >= worthwhile && r.from_stem >= longest / 2;
  });
  size_t stem = longest;
  for (auto r = requests.begin(); r != others; ++r) stem = std::min(stem, r->from_stem);
  branches_.clear();
  grow_sorted({requests.begin(), others}, stem);
  grow_sorted({others, requests.end()}, 0);
  run(scores);
  keep_stem();
}

template <class T>
void EvalScorer<T>::grow_sorted(std::span<Request> requests, size_t begin) {
  std::stable_sort(requests.begin(), requests.end(), [](const Request& a, const Request& b) {
    return std::ranges::lexicographical_compare(a.input, b.input);
  });
  grow(requests, begin, std::nullopt);
}

/// Makes branches of sorted requests that are alike up to `begin`: one for what they share from there
/// on, then those of the groups that part behind it.
template <class T>
void EvalScorer<T>::grow(std::span<const Request> requests, size_t begin, std::optional<size_t> parent) {
  if (requests.empty()) return;
  const size_t end = shared(requests.front().input, requests.back().input);
  const bool alike = end == requests.back().input.size();
  const bool saves = (end - begin) * (requests.size() - 1) >= worthwhile && end >= kept_positions;
  if (alike || saves) {
    branches_.push_back({requests.front().input.first(end), begin, parent, {}});
    parent = branches_.size() - 1;
    for (const Request& r : requests)
      for (size_t position = std::max(begin, r.all->from - 1); position < end; ++position)
        branches_.back().targets.push_back({position, r.all->tokens[position + 1], r.item, r.choice});
    begin = end;
    while (!requests.empty() && requests.front().input.size() == end) requests = requests.subspan(1);
  }
  while (!requests.empty()) {
    const std::span<const int> first = requests.front().input;
    const auto other = std::find_if(requests.begin(), requests.end(), [&](const Request& r) {
      return first.size() == end ? r.input.size() != end : r.input[end] != first[end];
    });
    const size_t group = static_cast<size_t>(other - requests.begin());
    grow(requests.first(group), begin, parent);
    requests = requests.subspan(group);
  }
}

/// One pass over all branches.
template <class T>
void EvalScorer<T>::run(std::vector<EvalScore>& scores) {
  sequences_.clear();
  sequences_.reserve(branches_.size());  // parents stay where they are
  for (const Branch& branch : branches_) {
    Sequence<T>* parent = branch.parent ? &sequences_[*branch.parent] : branch.begin > 0 ? &stem_ : nullptr;
    const std::span<const int> pending = branch.tokens.subspan(branch.begin);
    size_t logits_from = SIZE_MAX;
    for (const Target& target : branch.targets) logits_from = std::min(logits_from, target.position);
    sequences_.push_back({stem_.cache.after(branch.begin, branch.tokens.size()),
                          {pending.begin(), pending.end()}, logits_from, parent});
    rows_run_ += pending.size();
  }
  Hooks<T> hooks;
  add_patch(patch_, hooks);
  add_ablation(ablation_, hooks);
  hooks.add({HookPoint::Logits, 0}, [&](const Activation<T>& logits) { read_logits(logits, scores); });
  forward_.run(sequences_, hooks);
}

/// A beginning of the next batch's first item, as likely as not: the last item's.
template <class T>
void EvalScorer<T>::keep_stem() {
  size_t last = 0, item = 0;
  for (size_t i = 0; i < branches_.size(); ++i)
    for (const Target& target : branches_[i].targets)
      if (target.item >= item) {
        item = target.item;
        last = i;
      }
  Sequence<T> stem = whole(sequences_[last]);  // may be the old stem's child
  stem_tokens_.assign(branches_[last].tokens.begin(), branches_[last].tokens.end());
  stem_ = std::move(stem);
  sequences_.clear();
}

/// Adds the log-probabilities of the targets in the order of the rows: each choice's tokens in
/// theirs.
template <class T>
void EvalScorer<T>::read_logits(const Activation<T>& logits, std::vector<EvalScore>& scores) {
  struct Wanted {
    size_t row;
    const Target* target;
    double logit;
  };
  std::vector<Wanted> wanted;
  for (size_t r = 0; r < logits.rows.size(); ++r)
    for (const Target& target : branches_[logits.rows[r].sequence].targets)
      if (target.position == logits.rows[r].position)
        wanted.push_back({r, &target, logits.row(r)[target.token]});
  std::vector<LogSoftmax> softmax(logits.rows.size());
  parallel_for(softmax.size(), [&](size_t r) {
    softmax[r] = log_softmax<T>(kernels_, {logits.row(r), logits.width});
  });
  for (const Wanted& w : wanted) {
    EvalScore& score = scores[w.target->item];
    score.ll[w.target->choice] += softmax[w.row].at(w.logit);
    if (softmax[w.row].argmax != static_cast<size_t>(w.target->token))
      score.greedy[w.target->choice] = 0;
  }
}

template class EvalScorer<float>;
template class EvalScorer<double>;

}  // namespace sinkref
