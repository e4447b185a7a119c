#include "verify/golden.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "sinkref/interventions.h"
#include "verify/difference.h"
#include "verify/golden_file.h"
#include "model/work.h"

namespace sinkref {

namespace {

/// Collects what the golden holds of our run, in its shapes and as double.
class Collector {
 public:
  explicit Collector(const GoldenFile& golden)
      : golden_(golden), slot_(golden.tokens.size(), SIZE_MAX), values_(golden.tensors.size()) {
    for (size_t i = 0; i < golden.positions.size(); ++i) slot_[golden.positions[i]] = i;
  }

  void attach(Hooks<float>& hooks) {
    for (size_t i = 0; i < values_.size(); ++i) {
      const GoldenFile::Tensor& tensor = golden_.tensors[i];
      const double unseen = tensor.hook.point == HookPoint::AttnScores
                                ? -std::numeric_limits<double>::infinity()
                                : 0.0;
      values_[i].assign(tensor.truth.size(), unseen);
      hooks.add(tensor.hook, [this, i](const Activation<float>& a) {
        collect(golden_.tensors[i], a, values_[i]);
      });
    }
  }
  /// Of golden.tensors[i].
  const std::vector<double>& values(size_t i) const { return values_[i]; }

 private:
  void collect(const GoldenFile::Tensor& tensor, const Activation<float>& a,
               std::vector<double>& values) const {
    for (size_t r = 0; r < a.rows.size(); ++r) {
      const size_t position = a.rows[r].position;
      if (tensor.norm) {
        double sum = 0;
        for (size_t i = 0; i < a.width; ++i) sum += double(a.row(r)[i]) * double(a.row(r)[i]);
        values[position] = std::sqrt(sum);
      } else if (slot_[position] != SIZE_MAX) {
        const size_t row = a.head * tensor.rows + slot_[position];
        std::copy_n(a.row(r), a.width, values.begin() + static_cast<long>(row * tensor.width));
      }
    }
  }

  const GoldenFile& golden_;
  std::vector<size_t> slot_;  // by position
  std::vector<std::vector<double>> values_;
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

GoldenTensor compare(const GoldenFile::Tensor& tensor, const std::vector<double>& ours,
                     double& worst_ratio) {
  GoldenTensor result;
  result.name = tensor.name;
  result.floor = tensor.floor.pool;
  const double rounding = storage_rounding(tensor.truth);
  result.ours = error_against(tensor.truth, ours, tensor.width, tensor.floor.common_scale);
  result.within = result.ours.rms <= golden_allowance * result.floor.rms + rounding &&
                  result.ours.row_rms <=
                      golden_allowance * result.floor.row_rms +
                          (rounding == 0 ? 0 : rounding / std::fabs(tensor.truth[0]));
  if (result.ours.rms > 0)
    worst_ratio = std::max({worst_ratio, result.ours.rms / result.floor.rms,
                            result.ours.row_rms / result.floor.row_rms});
  return result;
}

/// Where the truth's two largest logits are further apart than twice HF's largest error, the
/// largest must be the same.
void compare_argmax(const GoldenFile::Tensor& logits, const std::vector<double>& ours,
                    double hf_error, GoldenResult& result) {
  for (size_t begin = 0; begin < logits.truth.size(); begin += logits.width) {
    const std::span<const double> row(logits.truth.data() + begin, logits.width);
    const size_t best = argmax<double>(row);
    double second = -std::numeric_limits<double>::infinity();
    for (size_t i = 0; i < row.size(); ++i)
      if (i != best) second = std::max(second, row[i]);
    if (!(row[best] - second > 2 * hf_error)) continue;
    ++result.argmax_compared;
    result.argmax_equal += argmax<double>({ours.data() + begin, logits.width}) == best;
  }
}

void compare_generated(const Model& model, const GoldenFile& golden, const RunOptions& options,
                       GoldenResult& result) {
  if (golden.generated.empty()) return;
  const std::vector<int>& eos = model.config().eos_ids;
  const auto expected_end = std::find_first_of(golden.generated.begin(), golden.generated.end(),
                                               eos.begin(), eos.end());
  const std::vector<int> expected(golden.generated.begin(), expected_end);
  Forward<float> forward(model, options);
  Hooks<float> hooks;
  add_patch(golden.patch, hooks);
  const std::vector<int> ours =
      generate(forward, forward.start(golden.tokens), golden.generated.size(), hooks);
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
  GoldenFile(path, model);
}

double golden_work(const Model& model, const std::filesystem::path& path) {
  const GoldenFile golden(path, model);
  const ModelConfig& c = model.config();
  const size_t tokens = golden.tokens.size(), generated = golden.generated.size();
  double work = prefill_work(c, tokens, 1, 0, SIZE_MAX, tokens);
  if (generated > 0) work += prefill_work(c, tokens) + decode_work(c, generated, 1, tokens);
  return work;
}

GoldenResult compare_with_golden(const Model& model, const std::string& kernel,
                                 const std::filesystem::path& path) {
  const GoldenFile golden(path, model);
  GoldenResult result;
  result.file = path.filename().string();
  result.weights_equal = true;
  result.inv_freq_equal = std::equal(golden.inv_freq.begin(), golden.inv_freq.end(),
                                     model.inv_freq().begin(), model.inv_freq().end());

  RunOptions options;
  options.kernel = kernel;
  Hooks<float> hooks;
  add_patch(golden.patch, hooks);
  Collector collector(golden);
  collector.attach(hooks);
  run(model, options, {golden.tokens}, hooks);

  bool within = true;
  for (size_t i = 0; i < golden.tensors.size(); ++i) {
    const GoldenFile::Tensor& tensor = golden.tensors[i];
    result.tensors.push_back(compare(tensor, collector.values(i), result.worst_ratio));
    within &= result.tensors.back().within;
    if (tensor.name == "logits")
      compare_argmax(tensor, collector.values(i), golden.logits_max_error, result);
  }
  compare_generated(model, golden, options, result);
  result.agrees = within && result.inv_freq_equal && result.argmax_equal == result.argmax_compared &&
                  result.generated_equal == result.generated;
  return result;
}

}  // namespace sinkref
