#include "verify/explain.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "verify/difference.h"

namespace sinkref {

namespace {

/// Compares every hook of one float64 run with theirs, and puts theirs in its place.
class Comparison {
 public:
  Comparison(const Model& model, const Candidate& candidate, const Budget& budget,
             const Hypothesis& hypothesis, size_t sequence)
      : model_(model),
        candidate_(candidate),
        budget_(budget),
        hypothesis_(hypothesis),
        sequence_(sequence) {}

  void attach(Hooks<double>& hooks, const Place& place, bool with_head) {
    for (Hook hook : candidate_.hooks()) {
      if (is_in_block(hook.point) && (hook.layer < place.first_block || hook.layer >= place.end_block)) continue;
      if (hook.point == HookPoint::Embed && place.first_block > 0) continue;
      if (is_after_blocks(hook.point) && !with_head) continue;
      const Budget::Entry* entry = budget_.find(hook_name(hook));
      hooks.add(hook, [this, entry](const Activation<double>& a) { compare(a, *entry); });
    }
  }

  Explanation explanation(Hook first) const {
    Explanation e;
    const auto of = [&](const std::vector<double>& ratios) {
      if (!hypothesis_.rounds) return *std::max_element(ratios.begin(), ratios.end());
      std::vector<double> sorted = ratios;
      std::sort(sorted.begin(), sorted.end());
      return sorted[(sorted.size() - 1) * 3 / 4];
    };
    for (const auto& [index, ratios] : ratios_) {
      e.anywhere = std::max(e.anywhere, of(ratios));
      if (index != hook_index(first, model_.config().layers)) continue;
      e.at_first = of(ratios);
      const auto bad = std::count_if(ratios.begin(), ratios.end(), [](double r) { return !(r <= 1); });
      e.over = static_cast<double>(bad) / static_cast<double>(ratios.size());
    }
    return e;
  }

 private:
  void compare(const Activation<double>& a, const Budget::Entry& entry) {
    std::vector<double> theirs(a.width);
    const bool attention = is_attention(a.hook.point);
    const size_t head = attention && !hypothesis_.head_of.empty() ? hypothesis_.head_of[a.head] : a.head;
    const double slack = a.hook.point == HookPoint::AttnScores ? hypothesis_.slack : 1;
    for (size_t r = 0; r < a.rows.size(); ++r) {
      const size_t position = a.rows[r].position;
      if (!candidate_.holds(position)) continue;
      if (attention)
        candidate_.attention_row(a.hook, sequence_, head, position, a.width, theirs.data());
      else
        candidate_.row(a.hook, sequence_, position, theirs.data());
      const RowDifference row = row_difference(a.row(r), theirs.data(), a.width);
      const double unit = a.hook.point == HookPoint::AttnScores ? slack : row.truth_rms();
      const double error = row.error_squares == 0 ? 0 : row.rms() / unit;
      ratios_[hook_index(a.hook, model_.config().layers)].push_back(
          TokenDifference::ratio(error, Budget::at(entry.local, position)));
      for (size_t i = 0; i < a.width; ++i)
        if (!std::isnan(theirs[i]) && theirs[i] < std::numeric_limits<double>::infinity())
          a.row(r)[i] = theirs[i];
    }
  }

  const Model& model_;
  const Candidate& candidate_;
  const Budget& budget_;
  const Hypothesis& hypothesis_;
  size_t sequence_;
  std::map<size_t, std::vector<double>> ratios_;  // by causal index, one for each row
};

/// Their input of a block in the place of ours.
void take_over(const Candidate& candidate, size_t block, size_t sequence, Hooks<double>& hooks) {
  const Hook own{HookPoint::ResidPre, block};
  const Hook input = candidate.has(own) ? own : Hook{HookPoint::ResidPost, block - 1};
  hooks.add(own, [&candidate, input, sequence](const Activation<double>& a) {
    for (size_t r = 0; r < a.rows.size(); ++r)
      candidate.row(input, sequence, a.rows[r].position, a.row(r));
  });
}

}  // namespace

Explanation explain(const Model& model, const Candidate& candidate, const VerifyOptions& options,
                    const Budget& budget, const Hypothesis& hypothesis, const Place& place,
                    bool with_head, size_t sequence, size_t positions, Hook first) {
  ModelConfig config = model.config();
  if (hypothesis.config) hypothesis.config(config);
  Model::Edit edit;
  if (hypothesis.weights)
    edit = [&](size_t layer, LayerWeights& weights) {
      if (place.holds(layer)) hypothesis.weights(weights);
    };
  const Model altered(model.checkpoint(), config, edit);
  RunOptions how;
  how.kernel = options.kernel;
  how.softmax = hypothesis.softmax.value_or(options.softmax);
  Hooks<double> hooks;
  if (place.first_block > 0) take_over(candidate, place.first_block, sequence, hooks);
  if (hypothesis.fault != "patch") {
    add_patch(options.patch, hooks);
  }
  add_ablation(options.ablation, hooks);
  Comparison comparison(altered, candidate, budget, hypothesis, sequence);
  if (hypothesis.before) hypothesis.before(hooks, place);
  comparison.attach(hooks, place, with_head);
  if (hypothesis.after) hypothesis.after(hooks, place);
  std::vector<int> tokens = candidate.tokens()[sequence];
  tokens.resize(std::min(tokens.size(), positions));
  // Of the patch and the hypothesis, what lies outside these blocks has no say and does not run.
  const bool logits = with_head && candidate.has({HookPoint::Logits, 0});
  Forward<double> forward(altered, how,
                          {place.first_block, place.end_block, logits ? LogitRows::hooked : LogitRows::none});
  std::vector<Sequence<double>> batch;
  batch.push_back(forward.start(tokens));
  forward.run(batch, hooks);
  return comparison.explanation(first);
}

}  // namespace sinkref
