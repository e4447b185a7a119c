#include "verify/golden.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "base/json_file.h"
#include "sinkref/error.h"
#include "sinkref/interventions.h"
#include "verify/difference.h"

namespace sinkref {

using nlohmann::json;

namespace {

const json* member(const json& object, const std::string& key) {
  const auto found = object.find(key);
  return found == object.end() ? nullptr : &*found;
}

std::string required(const TraceFile& file, const std::string& key) {
  const auto found = file.metadata().find(key);
  if (found == file.metadata().end())
    throw InputError(file.path().string() + ": metadata has no " + quoted(key) +
                     "; expected a file written by tools/reference/hf_golden.py");
  return found->second;
}

/// "blocks.3.hook_resid_post.norm" holds the norms of the rows of that hook.
constexpr std::string_view norm_suffix = ".norm";

/// Collects what the golden holds, in its shapes and as double.
class Collector {
 public:
  Collector(const TraceFile& golden, const ModelConfig& config) {
    const std::vector<uint64_t> shape = golden.shape("tokens");
    length_ = shape[1];
    const json positions = parse_json(required(golden, "positions"), golden.path().string());
    slot_.assign(length_, SIZE_MAX);
    size_t slots = 0;
    for (const json& position : positions) slot_.at(position.get<size_t>()) = slots++;
    for (Hook hook : all_hooks(config.layers)) {
      const std::string name = hook_name(hook);
      if (golden.has(name)) add(golden, hook, name, false);
      if (golden.has(name + std::string(norm_suffix)))
        add(golden, hook, name + std::string(norm_suffix), true);
    }
  }

  struct Tensor {
    std::string name;
    Hook hook;
    bool norm = false;
    size_t width = 0;  ///< values of a row
    std::vector<double> values;
  };

  void attach(Hooks<float>& hooks) {
    for (Tensor& tensor : tensors_)
      hooks.add(tensor.hook, [this, &tensor](const Activation<float>& a) { collect(tensor, a); });
  }
  const std::vector<Tensor>& tensors() const { return tensors_; }

 private:
  void add(const TraceFile& golden, Hook hook, const std::string& name, bool norm) {
    const std::vector<uint64_t> shape = golden.shape(name);
    size_t size = 1;
    for (uint64_t extent : shape) size *= extent;
    const bool attention = hook.point == HookPoint::AttnScores || hook.point == HookPoint::Pattern;
    const size_t rows = norm ? length_ : shape[attention ? 2 : 1];
    const size_t width = attention ? shape[3] : size / shape[0] / rows;
    const double unseen =
        hook.point == HookPoint::AttnScores ? -std::numeric_limits<double>::infinity() : 0.0;
    tensors_.push_back({name, hook, norm, width, std::vector<double>(size, unseen)});
    rows_.push_back(rows);
  }

  void collect(Tensor& tensor, const Activation<float>& a) {
    const size_t rows = rows_[static_cast<size_t>(&tensor - tensors_.data())];
    for (size_t r = 0; r < a.rows.size(); ++r) {
      const size_t position = a.rows[r].position;
      if (tensor.norm) {
        double sum = 0;
        for (size_t i = 0; i < a.width; ++i) sum += double(a.row(r)[i]) * double(a.row(r)[i]);
        tensor.values[position] = std::sqrt(sum);
      } else if (slot_[position] != SIZE_MAX) {
        const size_t row = a.head * rows + slot_[position];
        std::copy_n(a.row(r), a.width, tensor.values.begin() + static_cast<long>(row * tensor.width));
      }
    }
  }

  size_t length_ = 0;
  std::vector<size_t> slot_;
  std::vector<Tensor> tensors_;
  std::vector<size_t> rows_;
};

/// What storing a single number in fp32 may add to its error: half a step of the grid. A tensor of
/// many numbers needs no such room, as the roundings of all of them, ours and Hugging Face's alike,
/// are part of both rms errors and average to the same. One number has one rounding: with equal
/// errors before it, one side may be stored on the truth and the other half a step further away.
double storage_rounding(const std::vector<double>& truth) {
  if (truth.size() != 1) return 0;
  const float value = std::fabs(static_cast<float>(truth[0]));
  return (static_cast<double>(std::nextafter(value, INFINITY)) - static_cast<double>(value)) / 2;
}

GoldenTensor compare(const TraceFile& golden, const Collector::Tensor& ours, const json& floor,
                     double& worst_ratio) {
  const json* entry = member(floor, ours.name);
  if (entry == nullptr)
    throw InputError(golden.path().string() + ": no noise floor is given for " + quoted(ours.name));
  GoldenTensor result;
  result.name = ours.name;
  const size_t width = ours.norm ? 1 : ours.width;
  const std::vector<double> truth = golden.values(ours.name);
  const double rounding = storage_rounding(truth);
  result.ours = error_against(truth, ours.values, width,
                              entry->value("scale", "") == "tensor");
  result.floor = {entry->at("pool_rms").get<double>(), entry->at("pool_row_rms").get<double>()};
  result.within = result.ours.rms <= golden_allowance * result.floor.rms + rounding &&
                  result.ours.row_rms <= golden_allowance * result.floor.row_rms +
                                             (rounding == 0 ? 0 : rounding / std::fabs(truth[0]));
  if (result.ours.rms > 0)
    worst_ratio = std::max({worst_ratio, result.ours.rms / result.floor.rms,
                            result.ours.row_rms / result.floor.row_rms});
  return result;
}

/// Where the truth's two largest logits are further apart than twice HF's largest error, the
/// largest must be the same.
void compare_argmax(const TraceFile& golden, const Collector::Tensor& ours, double hf_error,
                    GoldenResult& result) {
  const std::vector<double> truth = golden.values(ours.name);
  for (size_t begin = 0; begin < truth.size(); begin += ours.width) {
    const std::span<const double> row(truth.data() + begin, ours.width);
    const size_t best = argmax<double>(row);
    double second = -std::numeric_limits<double>::infinity();
    for (size_t i = 0; i < row.size(); ++i)
      if (i != best) second = std::max(second, row[i]);
    if (!(row[best] - second > 2 * hf_error)) continue;
    ++result.argmax_compared;
    result.argmax_equal += argmax<double>({ours.values.data() + begin, ours.width}) == best;
  }
}

std::vector<int> cut_at_eos(const std::vector<double>& tokens, const std::vector<int>& eos) {
  std::vector<int> ids;
  for (double token : tokens) {
    const int id = static_cast<int>(token);
    if (std::find(eos.begin(), eos.end(), id) != eos.end()) break;
    ids.push_back(id);
  }
  return ids;
}

void compare_generated(const Model& model, const TraceFile& golden, const RunOptions& options,
                       const std::vector<int>& tokens, const std::vector<Neurons>& patch,
                       GoldenResult& result) {
  if (!golden.has("generated")) return;
  const std::vector<double> stored = golden.values("generated");
  const std::vector<int> expected = cut_at_eos(stored, model.config().eos_ids);
  Forward<float> forward(model, options);
  Hooks<float> hooks;
  add_patch(patch, hooks);
  const std::vector<int> ours =
      generate(forward, forward.start(tokens), stored.size(), hooks);
  result.generated = std::max(expected.size(), ours.size());
  for (size_t i = 0; i < std::min(expected.size(), ours.size()); ++i)
    result.generated_equal += expected[i] == ours[i];
}

}  // namespace

Error error_against(const std::vector<double>& truth, const std::vector<double>& ours, size_t width,
                    bool common_scale) {
  Error error;
  const double infinite = std::numeric_limits<double>::infinity();
  if (truth.size() != ours.size() || truth.empty() || width == 0 || truth.size() % width != 0)
    return {infinite, infinite};
  std::vector<RowDifference> rows;
  RowDifference all;
  for (size_t begin = 0; begin < truth.size(); begin += width) {
    rows.push_back(row_difference(truth.data() + begin, ours.data() + begin, width));
    all.error_squares += rows.back().error_squares;
    all.truth_squares += rows.back().truth_squares;
    all.count += rows.back().count;
  }
  if (all.count == 0) return {infinite, infinite};
  error.rms = all.rms();
  double sum = 0;
  for (const RowDifference& row : rows) {
    if (row.error_squares == 0) continue;
    const double ratio = row.rms() / (common_scale ? all : row).truth_rms();
    sum += ratio * ratio;
  }
  error.row_rms = std::sqrt(sum / static_cast<double>(rows.size()));
  return error;
}

void require_golden_of(const Model& model, const std::filesystem::path& path) {
  const TraceFile golden = TraceFile::open(path);
  const std::string model_hash = model.weights_sha256(model.config().layers);
  if (required(golden, "weights_sha256") != model_hash)
    throw InputError(path.string() + ": was made from weights " +
                     quoted(required(golden, "weights_sha256").substr(0, 16)) +
                     ", this model's are " + quoted(model_hash.substr(0, 16)) +
                     "; give the golden that belongs to the model");
  if (golden.shape("tokens")[0] != 1)
    throw InputError(path.string() + ": holds a batch; expected one sequence");
  required(golden, "patch");
}

GoldenResult compare_with_golden(const Model& model, const std::string& kernel,
                                 const std::filesystem::path& path) {
  require_golden_of(model, path);
  const TraceFile golden = TraceFile::open(path);
  GoldenResult result;
  result.file = path.filename().string();
  result.weights_equal = true;
  const std::vector<double> ids = golden.values("tokens");
  const std::vector<int> tokens(ids.begin(), ids.end());
  const std::string patch_text = required(golden, "patch");
  const std::vector<Neurons> patch =
      patch_text == "none" ? std::vector<Neurons>()
                           : parse_neurons(patch_text, "patch of " + path.string(), model.config());
  const std::vector<double> inv_freq = golden.values("rope.inv_freq");
  result.inv_freq_equal = std::equal(inv_freq.begin(), inv_freq.end(), model.inv_freq().begin(),
                                     model.inv_freq().end());

  RunOptions options;
  options.kernel = kernel;
  Hooks<float> hooks;
  add_patch(patch, hooks);
  Collector collector(golden, model.config());
  collector.attach(hooks);
  run(model, options, {tokens}, hooks);

  const json floor = parse_json(required(golden, "floor"), path.string());
  bool within = !collector.tensors().empty();
  for (const Collector::Tensor& tensor : collector.tensors()) {
    result.tensors.push_back(compare(golden, tensor, floor, result.worst_ratio));
    within &= result.tensors.back().within;
    if (tensor.name == "logits")
      compare_argmax(golden, tensor, floor.at("logits").at("pool_max").get<double>(), result);
  }
  compare_generated(model, golden, options, tokens, patch, result);
  result.agrees = within && result.inv_freq_equal && result.argmax_equal == result.argmax_compared &&
                  result.generated_equal == result.generated;
  return result;
}

}  // namespace sinkref
