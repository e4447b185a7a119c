// Log-likelihoods of many requests at the least work: what they share is run once.

#include <algorithm>

#include "sinkref/eval.h"

namespace sinkref {

namespace {

constexpr size_t cache_bytes = size_t{256} << 20;
// A longer or shorter shared prefix than this is worth a batch of its own.
constexpr size_t worthwhile = 48;
// So many rows saved are worth a pass of its own over the weights.
constexpr size_t pass_costs = 96;

size_t shared(std::span<const int> a, std::span<const int> b) {
  return static_cast<size_t>(
      std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first - a.begin());
}

/// What the model is run on: all tokens but the last.
std::span<const int> input(const EvalRequest& request) {
  return std::span(request.tokens).first(request.tokens.size() - 1);
}

/// The inputs' common beginning.
std::span<const int> trunk(const std::vector<EvalRequest>& requests) {
  std::span<const int> common = input(requests[0]);
  for (const EvalRequest& request : requests)
    common = common.first(shared(common, input(request)));
  return common;
}

/// How much of a trunk may come before it: its last row, and every row whose logits are wanted,
/// must still be run.
std::span<const int> before_targets(const std::vector<EvalRequest>& requests) {
  const std::span<const int> common = trunk(requests);
  size_t most = common.empty() ? 0 : common.size() - 1;
  for (const EvalRequest& request : requests) most = std::min(most, request.from - 1);
  return common.first(most);
}

size_t longest(const std::vector<EvalRequest>& requests) {
  size_t most = 0;
  for (const EvalRequest& request : requests) most = std::max(most, input(request).size());
  return most;
}

}  // namespace

size_t batch_items(const std::vector<std::vector<EvalRequest>>& items, const ModelConfig& config) {
  size_t rows = 0, cached = 0, common = 0;
  for (size_t i = 0; i < items.size(); ++i) {
    const std::span<const int> own = trunk(items[i]);
    const size_t with_last = i == 0 ? own.size() : shared(own, trunk(items[i - 1]));
    if (i == 1) common = with_last;
    if (i > 1 && std::max(common, with_last) - std::min(common, with_last) > worthwhile) return i;
    common = std::min(common, with_last);
    rows += own.size() - with_last;
    cached += own.size();
    for (const EvalRequest& request : items[i]) {
      const size_t length = input(request).size();
      if (length == own.size()) continue;
      rows += length - own.size();
      cached += length;
    }
    if (i > 0 && cached * config.cache_bytes_per_token() > cache_bytes) return i;
    if (rows >= eval_batch_rows) return i + 1;
  }
  return items.size();
}

template <class T>
EvalScorer<T>::EvalScorer(const Model& model, RunOptions options, std::vector<Neurons> patch,
                          std::vector<Neurons> ablation)
    : forward_(model, [&] {
        options.logits = LogitRows::chosen;
        options.progress = nullptr;
        return options;
      }()),
      kernels_(find_kernels<T>(options.kernel)),
      patch_(std::move(patch)),
      ablation_(std::move(ablation)),
      root_{{}, {KvCache<T>(model.config(), model.config().layers, 0), {}}},
      stem_(root_) {}

/// Makes stem_ begin with `tokens`, unless `users` of it would save too little; returns how many it
/// has.
template <class T>
size_t EvalScorer<T>::keep_stem(std::span<const int> tokens, size_t users,
                                std::vector<EvalScore>& scores) {
  const size_t have = shared(stem_.tokens, tokens);
  if ((tokens.size() - have) * users < pass_costs) return have;
  const std::span<const int> missing = tokens.subspan(have);
  stem_ = std::move(run({{&stem_, have, {missing.begin(), missing.end()}, {}, tokens.size()}}, scores)[0]);
  return tokens.size();
}

template <class T>
std::vector<EvalScore> EvalScorer<T>::score(const std::vector<std::vector<EvalRequest>>& items) {
  std::vector<EvalScore> scores;
  std::span<const int> common = items.empty() ? std::span<const int>() : before_targets(items[0]);
  for (const std::vector<EvalRequest>& requests : items) {
    scores.push_back({std::vector<double>(requests.size()),
                      std::vector<uint8_t>(requests.size(), 1)});
    common = common.first(shared(common, before_targets(requests)));
  }
  const size_t stem = keep_stem(common, items.size(), scores);
  std::vector<Branch> trunks, leaves;
  std::vector<size_t> trunk_of(items.size());
  for (size_t i = 0; i < items.size(); ++i) {
    const std::span<const int> own = trunk(items[i]);
    if (own.empty()) continue;
    trunk_of[i] = trunks.size();
    const std::span<const int> pending = own.subspan(stem);
    trunks.push_back({&stem_, stem, {pending.begin(), pending.end()}, {}, longest(items[i])});
    for (size_t choice = 0; choice < items[i].size(); ++choice)
      add_targets(items[i][choice], i, choice, stem, own.size(), trunks.back());
  }
  const std::vector<Prefix> ran = run(trunks, scores);  // freed with the batch: memory stays flat
  for (size_t i = 0; i < items.size(); ++i)
    for (size_t choice = 0; choice < items[i].size(); ++choice) {
      const size_t begin = trunk(items[i]).size();
      const std::span<const int> pending = input(items[i][choice]).subspan(begin);
      if (pending.empty()) continue;
      const Prefix* parent = begin == 0 ? &root_ : &ran[trunk_of[i]];
      leaves.push_back({parent, begin, {pending.begin(), pending.end()}, {},
                        begin + pending.size()});
      add_targets(items[i][choice], i, choice, begin, begin + pending.size(), leaves.back());
    }
  run(leaves, scores);
  return scores;
}

/// The tokens of the choice that rows [begin, end) predict.
template <class T>
void EvalScorer<T>::add_targets(const EvalRequest& request, size_t item, size_t choice,
                                size_t begin, size_t end, Branch& branch) {
  for (size_t position = std::max(begin, request.from - 1); position < end; ++position)
    branch.targets.push_back({position, request.tokens[position + 1], item, choice});
}

template <class T>
auto EvalScorer<T>::run(const std::vector<Branch>& branches, std::vector<EvalScore>& scores)
    -> std::vector<Prefix> {
  if (branches.empty()) return {};
  std::vector<Sequence<T>> sequences(branches.size(), root_.sequence);
#pragma omp parallel for schedule(dynamic, 1)
  for (size_t i = 0; i < branches.size(); ++i) {
    const Branch& branch = branches[i];
    Sequence<T>& sequence = sequences[i];
    sequence.cache = branch.parent->sequence.cache.beginning(branch.shared, branch.room);
    sequence.pending = branch.pending;
    sequence.logits_from = SIZE_MAX;
    for (const Target& target : branch.targets)
      sequence.logits_from = std::min(sequence.logits_from, target.position);
  }
  for (const Branch& branch : branches) rows_run_ += branch.pending.size();
  Hooks<T> hooks;
  add_patch(patch_, hooks);
  add_ablation(ablation_, hooks);
  hooks.add({HookPoint::Logits, 0}, [&](const Activation<T>& logits) {
    read_logits(logits, branches, scores);
  });
  forward_.run(sequences, hooks);
  std::vector<Prefix> prefixes;
  for (size_t i = 0; i < branches.size(); ++i) {
    const std::vector<int>& before = branches[i].parent->tokens;
    std::vector<int> tokens(before.begin(), before.begin() + static_cast<long>(branches[i].shared));
    tokens.insert(tokens.end(), branches[i].pending.begin(), branches[i].pending.end());
    prefixes.push_back({std::move(tokens), std::move(sequences[i])});
  }
  return prefixes;
}

/// Adds the log-probabilities of the targets in the order of the rows: each choice's tokens in
/// theirs.
template <class T>
void EvalScorer<T>::read_logits(const Activation<T>& logits, const std::vector<Branch>& branches,
                                std::vector<EvalScore>& scores) {
  struct Wanted {
    size_t row;
    const Target* target;
    double logit;
  };
  std::vector<Wanted> wanted;
  for (size_t r = 0; r < logits.rows.size(); ++r)
    for (const Target& target : branches[logits.rows[r].sequence].targets)
      if (target.position == logits.rows[r].position)
        wanted.push_back({r, &target, logits.row(r)[target.token]});
  std::vector<LogSoftmax> softmax(logits.rows.size());
#pragma omp parallel for schedule(static)
  for (size_t r = 0; r < softmax.size(); ++r)
    softmax[r] = log_softmax<T>(kernels_, {logits.row(r), logits.width});
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
