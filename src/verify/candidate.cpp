#include "verify/candidate.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "checkpoint/readers.h"
#include "sinkref/error.h"
#include "verify/trace_values.h"

namespace sinkref {

namespace {

constexpr size_t most_globs = 20'000;  // characters

/// Beside the hooks, what a trace may hold.
bool is_known_extra(const std::string& name) {
  return name == "tokens" || name == "lengths" || name == "positions" || name == "rope.inv_freq";
}

bool is_readable(const StoredTensor& t) {
  if (t.unsupported_dtype == "F64") return true;
  return t.unsupported_dtype.empty() &&
         (t.dtype == DType::F32 || t.dtype == DType::F16 || t.dtype == DType::BF16);
}

}  // namespace

Candidate::Candidate(const TraceFile& file, const ModelConfig& config, const std::string& require,
                     const std::optional<std::vector<int>>& tokens)
    : file_(file), config_(config) {
  read_tokens(tokens);
  read_positions();
  find_tensors();
  find_holes(require);
}

std::string Candidate::metadata(const std::string& key) const {
  const auto found = file_.metadata().find(key);
  return found == file_.metadata().end() ? "" : found->second;
}

void Candidate::read_tokens(const std::optional<std::vector<int>>& tokens) {
  const std::string name = file_.path().string();
  if (!file_.has("tokens")) {
    if (!tokens)
      throw InputError(name + ": has no tensor \"tokens\" [b,p]; give --tokens or --prompt to say "
                       "what was run");
    tokens_ = {*tokens};
    longest_ = tokens->size();
    return;
  }
  const std::vector<uint64_t> shape = file_.shape("tokens");
  if (shape.size() != 2 || shape[0] == 0 || shape[1] == 0)
    throw InputError(name + ": tokens have the shape " + shape_text(shape) +
                     ", expected [sequences, positions], both at least 1");
  const std::vector<double> ids = file_.values("tokens");
  longest_ = shape[1];
  std::vector<double> lengths(shape[0], static_cast<double>(longest_));
  if (file_.has("lengths")) lengths = file_.values("lengths");
  if (lengths.size() != shape[0])
    throw InputError(name + ": holds " + std::to_string(lengths.size()) + " lengths for " +
                     std::to_string(shape[0]) + " sequences of tokens");
  for (size_t b = 0; b < shape[0]; ++b) {
    if (!(lengths[b] >= 1 && lengths[b] <= static_cast<double>(longest_)))
      throw InputError(name + ": lengths[" + std::to_string(b) + "] is not from 1 to " +
                       std::to_string(longest_));
    std::vector<int> sequence;
    for (size_t i = 0; i < static_cast<size_t>(lengths[b]); ++i) {
      const double id = ids[b * longest_ + i];
      if (!(id >= 0 && id < static_cast<double>(config_.vocab_size)) || id != std::floor(id))
        throw InputError(name + ": tokens[" + std::to_string(b) + "," + std::to_string(i) +
                         "] is not in this model's vocabulary (0 to " +
                         std::to_string(config_.vocab_size - 1) + "); is it the same model?");
      sequence.push_back(static_cast<int>(id));
    }
    tokens_.push_back(std::move(sequence));
  }
}

void Candidate::read_positions() {
  place_of_.assign(longest_, not_held);
  if (!file_.has("positions")) {
    positions_.resize(longest_);
    std::iota(positions_.begin(), positions_.end(), size_t{0});
    place_of_ = positions_;
    return;
  }
  for (const double p : checked_values(file_, "positions", {any_extent}, {"I64"})) {
    const bool exists = p >= 0 && p < static_cast<double>(longest_);
    if (!exists || holds(static_cast<size_t>(p)))
      refuse(file_.path().string(), "tensor \"positions\" holds " + std::to_string(static_cast<int64_t>(p)) +
             (exists ? " twice" : "") + ", expected positions from 0 to " + std::to_string(longest_ - 1) +
             ", each once", "trace it again with --positions");
    place_of_[static_cast<size_t>(p)] = positions_.size();
    positions_.push_back(static_cast<size_t>(p));
  }
}

void Candidate::find_tensors() {
  std::map<std::string, Hook> known;
  const std::vector<Hook> all = all_hooks(config_.layers);
  slots_.assign(all.size(), nullptr);
  for (Hook hook : all) known[hook_name(hook)] = hook;
  for (const std::string& name : file_.names()) {
    if (is_known_extra(name)) continue;
    const auto found = known.find(name);
    if (found == known.end()) {
      problems_.push_back("unused tensor " + quoted(name) +
                          ": this model has no hook of that name, so it cannot be compared");
      continue;
    }
    const StoredTensor& tensor = file_.tensor(name);
    std::vector<size_t> shape = hook_shape(found->second.point, config_);
    if (is_attention(found->second.point))
      shape = {tokens_.size(), shape[0], positions_.size(), longest_};
    else
      shape.insert(shape.begin(), {tokens_.size(), positions_.size()});
    if (!std::equal(shape.begin(), shape.end(), tensor.shape.begin(), tensor.shape.end()))
      problems_.push_back("misshapen tensor " + quoted(name) + ": expected " +
                          shape_text(std::vector<uint64_t>(shape.begin(), shape.end())) +
                          ", found " + shape_text(tensor.shape));
    else if (!is_readable(tensor))
      problems_.push_back("tensor " + quoted(name) + ": expected F32, F16, BF16 or F64, found " +
                          dtype_text(tensor));
    else
      slots_[hook_index(found->second, config_.layers)] = &tensor;
  }
  for (Hook hook : all)
    if (has(hook)) hooks_.push_back(hook);
  if (hooks_.empty())
    problems_.push_back("no tensor could be compared; expected names like " +
                        quoted(hook_name(all[all.size() / 2])) + " or \"logits\"");
}

/// Missing: what was asked for, and holes in the layers (there at 3 and 5, not at 4).
void Candidate::find_holes(const std::string& require) {
  for (const std::string& globs : {require, metadata("hooks")}) {
    if (globs.empty()) continue;
    const bool is_option = !require.empty();  // which comes first
    if (globs.size() > most_globs)
      refuse(is_option ? "--require" : file_.path().string() + ": metadata \"hooks\"",
             "is " + std::to_string(globs.size()) + " characters long, expected at most " + std::to_string(most_globs),
             "select with fewer and shorter globs");
    for (Hook hook : select_hooks(globs, config_.layers))
      if (!has(hook) && !file_.has(hook_name(hook)))
        problems_.push_back("missing tensor " + quoted(hook_name(hook)) + ": asked for by " +
                            quoted(globs));
    return;
  }
  for (const Hook of_block : all_hooks(1)) {
    if (!is_in_block(of_block.point)) continue;
    const auto there = [&](size_t layer) { return file_.has(hook_name({of_block.point, layer})); };
    size_t first = 0, last = config_.layers;
    while (first < config_.layers && !there(first)) ++first;
    while (last > first && !there(last - 1)) --last;
    for (size_t layer = first; layer < last; ++layer)
      if (!there(layer))
        problems_.push_back(
            "missing tensor " + quoted(hook_name({of_block.point, layer})) +
            ": other layers have it; if that is meant, say with --require what must be there");
  }
}

void Candidate::row(Hook hook, size_t sequence, size_t position, double* out) const {
  size_t width = 1;
  for (size_t extent : hook_shape(hook.point, config_)) width *= extent;
  read_values(*slot(hook), (sequence * positions_.size() + place(position)) * width, width, out);
}

void Candidate::attention_row(Hook hook, size_t sequence, size_t head, size_t query, size_t keys,
                              double* out) const {
  const size_t row = (sequence * config_.heads + head) * positions_.size() + place(query);
  read_values(*slot(hook), row * longest_, keys, out);
  if (hook.point != HookPoint::AttnScores) return;
  for (size_t k = 0; k < keys; ++k)
    if (out[k] <= -65504.0) out[k] = -std::numeric_limits<double>::infinity();
}

}  // namespace sinkref
