#include "verify/diagnose.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "sinkref/tensor.h"
#include "verify/explain.h"
#include "verify/truth_run.h"

namespace sinkref {

namespace {

/// The hypotheses are tried on at most so many positions at first, or what it takes to see the fault.
constexpr size_t first_positions = 64;

struct Suspect {
  Hypothesis hypothesis;
  Place place;
  Explanation found;
  bool whole = false;  ///< with it, every tensor of the trace agrees
};

/// The block whose whole input they supply, nearest before the hook.
size_t block_with_input(const Candidate& candidate, Hook hook, size_t layers) {
  if (!candidate.holds_all()) return 0;
  size_t block = std::max<size_t>(blocks_needed(hook, layers), 1) - 1;
  while (block > 0 && !candidate.has({HookPoint::ResidPre, block}) &&
         !candidate.has({HookPoint::ResidPost, block - 1}))
    --block;
  return block;
}

/// True where the fault explains every tensor of the trace.
bool explains_all(const Model& model, const Candidate& candidate, const VerifyOptions& options,
                  const Budget& budget, const Hypothesis& hypothesis, std::optional<size_t> only,
                  Hook first) {
  const size_t layers = model.config().layers;
  const Hook last = candidate.hooks().back();
  const bool with_head = is_after_blocks(last.point);
  const size_t end = blocks_needed(last, layers);
  for (size_t s = 0; s < candidate.tokens().size(); ++s)
    if (!(explain(model, candidate, options, budget, hypothesis, {0, end, only}, with_head, s,
                  SIZE_MAX, first)
              .anywhere <= 1))
      return false;
  return true;
}

std::vector<Suspect> suspects(const Model& model, const Candidate& candidate,
                              const VerifyOptions& options, const VerifyResult& result) {
  const TensorDifference& tensor = result.tensors[*result.first];
  const Hook first = tensor.hook;
  const TokenDifference& token = *tensor.first_over();
  const size_t layers = model.config().layers;
  const bool with_head = is_after_blocks(first.point);
  Place place;
  place.first_block = block_with_input(candidate, first, layers);
  place.end_block = std::max<size_t>(blocks_needed(first, layers), 1);
  const bool one_block = !with_head && place.end_block == place.first_block + 1;
  const auto tried = [&](const Hypothesis& h) {
    return explain(model, candidate, options, result.budget, h, place, with_head, token.sequence,
                   std::max(first_positions, token.token + 8), first);
  };
  const Explanation without = tried({"none", ""});
  std::vector<Suspect> found;
  if (without.at_first <= 1) return found;  // what no fault explains as well is no evidence of one
  for (Hypothesis& h : usual_faults(model, candidate, options, first)) {
    if (one_block && h.first > first.point) continue;  // it cannot show so early
    const Explanation e = tried(h);
    // Rounding may leave some rows off, but it has to explain most of those that were.
    if (h.rounds && e.over > without.over / 4) continue;
    if (e.at_first <= 1) found.push_back({std::move(h), place, e});
  }
  return found;
}

/// Whether every value of a tensor is a number of the type.
bool all_of_type(const Candidate& candidate, const ModelConfig& config, Hook hook, NumberType type) {
  size_t width = 1;
  for (size_t extent : hook_shape(hook.point, config)) width *= extent;
  if (is_attention(hook.point) || width == 1) return false;
  std::vector<double> row(width);
  for (size_t p = 0; p < candidate.tokens()[0].size(); ++p) {
    if (!candidate.holds(p)) continue;
    candidate.row(hook, 0, p, row.data());
    for (double x : row)
      if (std::isfinite(x) && rounded(x, type) != x) return false;
  }
  return true;
}

/// Narrow arithmetic that the trace does not own up to: it shows in the numbers, and as the
/// arithmetic of the whole run it makes everything agree.
bool diagnose_precision(const Model& model, const Candidate& candidate,
                        const VerifyOptions& options, VerifyResult& result) {
  if (result.arithmetic.activations != NumberType::fp32) return false;
  for (NumberType type : {NumberType::fp16, NumberType::bf16}) {
    if (!all_of_type(candidate, model.config(), result.tensors[*result.first].hook, type)) continue;
    TruthRun run(model, candidate, options, {type, result.arithmetic.cache});
    for (size_t i = 0; i < candidate.tokens().size(); ++i) run.run(i);
    bool agrees = true;
    for (const TensorDifference& tensor : run.tensors()) agrees &= tensor.first_over() == nullptr;
    if (!agrees) continue;
    const std::string name = number_type_name(type);
    result.diagnosis.push_back({"precision", "certain",
                                "their values are " + name + " numbers, and as a run in " + name +
                                    " all tensors agree (--candidate-dtype " + name + ")"});
    return true;
  }
  return false;
}

/// Tokens other than stated show in the embedding: its rows are rows of the table, bit for bit.
bool diagnose_embedding(const Model& model, const Candidate& candidate, VerifyResult& result) {
  if (result.tensors[*result.first].hook.point != HookPoint::Embed || !candidate.holds_all()) return false;
  const StoredMatrix& table = model.embedding();
  const std::vector<int>& tokens = candidate.tokens()[0];
  std::vector<int> theirs;
  std::vector<double> row(table.cols);
  std::vector<std::vector<float>> rows(table.rows);
  for (size_t id = 0; id < table.rows; ++id) rows[id] = widen_row(table, id);
  for (size_t p = 0; p < tokens.size(); ++p) {
    candidate.row({HookPoint::Embed, 0}, 0, p, row.data());
    const auto found = std::find_if(rows.begin(), rows.end(), [&](const std::vector<float>& known) {
      return std::equal(known.begin(), known.end(), row.begin(),
                        [](float a, double b) { return static_cast<double>(a) == b; });
    });
    if (found == rows.end()) return false;
    theirs.push_back(static_cast<int>(found - rows.begin()));
  }
  const std::vector<int> without_last(tokens.begin(), tokens.end() - 1);
  const std::vector<int> without_first(theirs.begin() + 1, theirs.end());
  Diagnosis d{"tokens", "certain", "the embedding is of other tokens than the trace says"};
  if (without_first == without_last && theirs[0] == tokens[0])
    d = {"bos", "certain", "the embedding begins with the first token twice (BOS doubled)"};
  else if (std::equal(tokens.begin() + 1, tokens.end(), theirs.begin()))
    d = {"bos", "certain", "the embedding lacks the first token (BOS missing)"};
  result.diagnosis.push_back(d);
  return true;
}

/// What remains when no fault fits: an output matrix that cannot be known.
Diagnosis nothing_fits(const Model& model, const Candidate& candidate, const VerifyResult& result) {
  const Hook first = result.tensors[*result.first].hook;
  if (first.point == HookPoint::Logits && model.config().tied_output &&
      candidate.has({HookPoint::LnFinalNormalized, 0}))
    return {"tied_output", "likely",
            "the final norm agrees and the logits do not: the output matrix is not the embedding, to "
            "which this model ties it"};
  return {"unknown", "none",
          "none of the usual faults reproduces their numbers"};
}

void report(std::vector<Suspect>& found, VerifyResult& result) {
  const bool any_whole = std::any_of(found.begin(), found.end(), [](const Suspect& s) { return s.whole; });
  std::erase_if(found, [&](const Suspect& s) { return any_whole && !s.whole; });
  if (!any_whole)  // those that explain the whole block go before those that explain one tensor
    if (std::any_of(found.begin(), found.end(), [](const Suspect& s) { return s.found.anywhere <= 1; }))
      std::erase_if(found, [](const Suspect& s) { return !(s.found.anywhere <= 1); });
  std::set<std::string> kinds;
  for (const Suspect& s : found) kinds.insert(s.hypothesis.fault);
  std::set<std::string> named;
  for (const Suspect& one : found) {
    if (!named.insert(one.hypothesis.fault).second) continue;
    // Of several variants of a fault, all within rounding, the nearest.
    const Suspect& s = *std::min_element(
        found.begin(), found.end(), [&](const Suspect& a, const Suspect& b) {
          const auto key = [&](const Suspect& x) {
            return std::pair(x.hypothesis.fault != one.hypothesis.fault, x.found.at_first);
          };
          return key(a) < key(b);
        });
    const Hypothesis& h = s.hypothesis;
    std::string evidence = any_whole ? "; with it all tensors agree within rounding"
                           : s.found.anywhere <= 1
                               ? "; with it this block agrees within rounding, but not all of the trace"
                               : "; with it this tensor agrees within rounding, but not what follows";
    if (kinds.size() > 1) evidence += " (this trace cannot tell it from the others named)";
    const std::string where =
        s.place.only ? " (in block " + std::to_string(*s.place.only) + " alone)" : "";
    result.diagnosis.push_back(
        {h.fault, any_whole && kinds.size() == 1 ? "certain" : "likely", h.detail + where + evidence});
  }
}

}  // namespace

Diagnosis diagnose_tokens(const std::vector<int>& expected, const std::vector<int>& theirs,
                          std::optional<int> bos) {
  const auto with_one_more = [](const std::vector<int>& shorter, const std::vector<int>& longer) {
    return longer.size() == shorter.size() + 1 &&
           std::equal(shorter.begin(), shorter.end(), longer.begin() + 1);
  };
  if (with_one_more(theirs, expected) && (!bos || expected[0] == *bos))
    return {"bos", "certain", "BOS is missing: their tokens are the expected ones without the first"};
  if (with_one_more(expected, theirs) && theirs[0] == expected[0] && (!bos || theirs[0] == *bos))
    return {"bos", "certain", "BOS is doubled: their tokens begin with it once more"};
  if (with_one_more(expected, theirs) && bos && theirs[0] == *bos)
    return {"bos", "certain", "BOS was added: their tokens are the expected ones with it in front"};
  return {"tokens", "certain", "another text or another tokenizer"};
}

void diagnose(const Model& model, const Candidate& candidate, const VerifyOptions& options,
              VerifyResult& result) {
  const TensorDifference& tensor = result.tensors[*result.first];
  if (tensor.tokens_over_local == 0) {
    result.diagnosis.push_back({"unknown", "none",
                                "every step is within rounding of its own input, their sum is not"});
    return;
  }
  if (diagnose_embedding(model, candidate, result)) return;
  if (options.say) options.say("looking for what explains " + tensor.name);
  if (diagnose_precision(model, candidate, options, result)) return;
  std::vector<Suspect> found = suspects(model, candidate, options, result);
  for (Suspect& s : found) {
    if (!(s.found.anywhere <= 1)) continue;
    const auto all = [&](std::optional<size_t> only) {
      return explains_all(model, candidate, options, result.budget, s.hypothesis, only, tensor.hook);
    };
    s.whole = all(std::nullopt);
    if (s.whole || s.hypothesis.config || is_after_blocks(tensor.hook.point)) continue;
    s.place.only = tensor.hook.layer;
    s.whole = all(tensor.hook.layer);
    if (!s.whole) s.place.only.reset();
  }
  if (found.empty() && result.diagnosis.empty())
    result.diagnosis.push_back(nothing_fits(model, candidate, result));
  report(found, result);
}

}  // namespace sinkref
