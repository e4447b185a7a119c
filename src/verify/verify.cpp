#include "sinkref/verify.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <set>

#include "sinkref/error.h"
#include "verify/advice.h"
#include "verify/candidate.h"
#include "verify/diagnose.h"
#include "verify/difference.h"
#include "verify/truth_run.h"

namespace sinkref {

namespace {

std::optional<NumberType> type_of(const std::string& name) {
  if (name == "fp32" || name == "float32" || name == "torch.float32") return NumberType::fp32;
  if (name == "fp16" || name == "float16" || name == "torch.float16") return NumberType::fp16;
  if (name == "bf16" || name == "bfloat16" || name == "torch.bfloat16") return NumberType::bf16;
  return std::nullopt;
}

NumberType stated(const Candidate& candidate, const std::string& key,
                  const std::optional<NumberType>& given) {
  if (given) return *given;
  const std::string name = candidate.metadata(key);
  if (name.empty()) return NumberType::fp32;
  const std::optional<NumberType> type = type_of(name);
  if (!type)
    throw InputError(candidate.file().path().string() + ": metadata " + quoted(key) + " is " +
                     quoted(name) + ", expected fp32, fp16 or bf16; say it with --candidate-" +
                     (key == "dtype" ? "dtype" : "cache"));
  return *type;
}

/// Where rope.inv_freq is supplied: its fp32 numbers, each at most one step from ours (PyTorch's own
/// differ so between CPUs).
void check_inv_freq(const Model& model, const Candidate& candidate, VerifyResult& result) {
  if (!candidate.file().has("rope.inv_freq")) return;
  const std::vector<double> theirs = candidate.file().values("rope.inv_freq");
  if (theirs.size() != model.inv_freq().size()) {
    result.problems.push_back("rope.inv_freq: holds " + std::to_string(theirs.size()) +
                              " frequencies, expected " + std::to_string(model.inv_freq().size()));
    return;
  }
  for (size_t i = 0; i < theirs.size(); ++i)
    if (ulps_between(model.inv_freq()[i], static_cast<float>(theirs[i])) > 1) {
      result.notes.push_back("rope.inv_freq[" + std::to_string(i) + "]: ours " +
                             std::to_string(model.inv_freq()[i]) + ", theirs " +
                             std::to_string(theirs[i]));
      return;
    }
}

void check_weights(const Model& model, const Candidate& candidate, VerifyResult& result) {
  const std::string theirs = candidate.metadata("weights_sha256");
  if (theirs.empty()) {
    result.notes.push_back("the trace does not say which weights it was made from");
    return;
  }
  const std::string blocks = candidate.metadata("blocks_run");
  size_t depth = model.config().layers;
  if (!blocks.empty()) {
    const auto [end, error] = std::from_chars(blocks.data(), blocks.data() + blocks.size(), depth);
    if (error != std::errc() || end != blocks.data() + blocks.size())
      throw InputError(candidate.file().path().string() + ": metadata \"blocks_run\" is " +
                       quoted(blocks) + ", expected a number of blocks");
    depth = std::min(depth, model.config().layers);
  }
  const std::string ours = model.weights_sha256(depth);
  if (theirs != ours)
    result.problems.push_back("other weights: the trace was made from " +
                              quoted(theirs.substr(0, 16)) + ", this model's are " +
                              quoted(ours.substr(0, 16)));
}

void check_tokens(const Candidate& candidate, const VerifyOptions& options, VerifyResult& result) {
  const std::vector<int>& theirs = candidate.tokens()[0];
  if (!options.tokens) {
    if (options.bos && theirs[0] != *options.bos)
      result.notes.push_back("the tokens do not begin with BOS (" + std::to_string(*options.bos) +
                             "), which this checkpoint's tokenizer adds");
    if (options.bos && theirs.size() > 1 && theirs[0] == *options.bos && theirs[1] == *options.bos)
      result.notes.push_back("the tokens begin with BOS twice");
    return;
  }
  const std::vector<int>& expected = *options.tokens;
  const auto wrong = std::mismatch(expected.begin(), expected.end(), theirs.begin(), theirs.end());
  if (wrong.first == expected.end() && wrong.second == theirs.end() &&
      candidate.tokens().size() == 1)
    return;
  result.wrong_token = static_cast<size_t>(wrong.first - expected.begin());
  result.problems.push_back(
      "other tokens: position " + std::to_string(*result.wrong_token) + " should be " +
      (wrong.first == expected.end() ? "the end" : std::to_string(*wrong.first)) + ", theirs is " +
      (wrong.second == theirs.end() ? "the end" : std::to_string(*wrong.second)));
  result.diagnosis.push_back(diagnose_tokens(expected, theirs, options.bos));
}

void find_first(VerifyResult& result) {
  for (TensorDifference& tensor : result.tensors) {
    size_t nan = 0, inf = 0;
    for (const TokenDifference& token : tensor.tokens) {
      tensor.tokens_over_local += !(token.local_ratio() <= 1);
      tensor.tokens_over_propagated += !(token.propagated_ratio() <= 1);
      nan += token.nan;
      inf += token.inf;
    }
    if (nan + inf > 0)
      result.problems.push_back("tensor " + quoted(tensor.name) + ": " + std::to_string(nan) +
                                " NaN and " + std::to_string(inf) +
                                " infinite values where the truth is finite");
  }
  const auto index_of = [&](size_t TensorDifference::*count) {
    const auto found = std::find_if(result.tensors.begin(), result.tensors.end(),
                                    [&](const TensorDifference& t) { return t.*count > 0; });
    return found == result.tensors.end()
               ? std::nullopt
               : std::optional<size_t>(found - result.tensors.begin());
  };
  result.first = index_of(&TensorDifference::tokens_over_local);
  if (!result.first) result.first = index_of(&TensorDifference::tokens_over_propagated);
}

}  // namespace

const char* number_type_name(NumberType type) {
  return type == NumberType::fp32 ? "fp32" : type == NumberType::fp16 ? "fp16" : "bf16";
}

double TokenDifference::ratio(double error, double budget) {
  if (error == 0) return 0;
  return budget > 0 ? error / budget : std::numeric_limits<double>::infinity();
}

const TokenDifference* TensorDifference::first_over() const {
  for (const auto& ratio : {&TokenDifference::local_ratio, &TokenDifference::propagated_ratio})
    for (const TokenDifference& token : tokens)
      if (!((token.*ratio)() <= 1)) return &token;
  return nullptr;
}

const TokenDifference& TensorDifference::worst() const {
  const auto size = [](const TokenDifference& t) {
    return std::max(t.local_ratio(), t.propagated_ratio());
  };
  return *std::max_element(tokens.begin(), tokens.end(),
                           [&](const TokenDifference& a, const TokenDifference& b) {
                             return size(a) < size(b);
                           });
}

VerifyResult verify_candidate(const Model& model, const TraceFile& file,
                              const VerifyOptions& options) {
  VerifyResult result;
  const Candidate candidate(file, model.config(), options.require, options.tokens);
  result.problems = candidate.problems();
  result.arithmetic = {stated(candidate, "dtype", options.activations),
                       stated(candidate, "kv_cache", options.cache)};
  check_weights(model, candidate, result);
  check_inv_freq(model, candidate, result);
  check_tokens(candidate, options, result);
  if (!candidate.hooks().empty()) {
    TruthRun run(model, candidate, options, result.arithmetic);
    for (size_t i = 0; i < candidate.tokens().size(); ++i) run.run(i);
    result.budget = run.budget();
    result.tensors = std::move(run.tensors());
    find_first(result);
    if (result.first) {
      if (options.diagnose) diagnose(model, candidate, options, result);
      result.step = hook_info(result.tensors[*result.first].hook.point).formula;
      result.next = next_step(model, candidate, result);
    }
  }
  result.agrees = result.problems.empty() && !result.first;
  return result;
}

}  // namespace sinkref
