// The promise of one set of bits, tried on this machine: the same tokens on every kernel, number of
// threads, chunk, batch and cache, and a control that shows that the comparison can fail.

#include "verify/self_check.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>
#include <map>

#include "base/threads.h"
#include "sinkref/error.h"
#include "sinkref/forward.h"
#include "model/work.h"

namespace sinkref {

namespace {

/// (hook, head, position) -> a hash of the values' bytes.
using Digests = std::map<std::tuple<size_t, size_t, size_t>, uint64_t>;

/// FNV-1a over words of 32 bits: every bit counts.
uint64_t hash_of(const float* values, size_t n) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (size_t i = 0; i < n; ++i) {
    uint32_t bits;
    std::memcpy(&bits, &values[i], sizeof bits);
    hash = (hash ^ bits) * 0x100000001b3u;
  }
  return hash;
}

struct Setting {
  std::string kernel = "auto";
  size_t threads = 0;  ///< 0 for all
  size_t chunk = SIZE_MAX;
  size_t decode_from = SIZE_MAX;  ///< tokens from here on come one at a time
  bool in_batch = false;          ///< between two other sequences
  bool reuse_prefix = false;      ///< the first half lies in the cache, after a longer run
  bool watch_attention = false;   ///< scores and patterns too, which makes attention run in order
};

class Runner {
 public:
  Runner(const Model& model, const std::vector<int>& tokens)
      : model_(model), tokens_(tokens), hooks_(all_hooks(model.config().layers)) {}

  Digests run(const Model& model, const Setting& setting) const {
    const size_t threads = thread_count();
    if (setting.threads > 0) set_thread_count(setting.threads);
    RunOptions options;
    options.kernel = setting.kernel;
    options.chunk = std::min(setting.chunk, tokens_.size());
    Forward<float> forward(model, options, {0, SIZE_MAX, LogitRows::hooked});
    Digests digests;
    Hooks<float> hooks;
    const size_t own = setting.in_batch ? 1 : 0;
    watch(hooks, setting, own, digests);
    std::vector<Sequence<float>> batch = start(forward, setting);
    if (setting.reuse_prefix) fill_prefix(forward, batch[0]);
    std::vector<int> later;
    if (setting.decode_from < tokens_.size()) {
      later.assign(tokens_.begin() + static_cast<long>(setting.decode_from), tokens_.end());
      batch[own].pending.resize(setting.decode_from);
    }
    forward.run(batch, hooks);
    for (int token : later) {
      batch[own].pending = {token};
      forward.run(batch, hooks, false);
    }
    set_thread_count(threads);
    return digests;
  }
  Digests run(const Setting& setting) const { return run(model_, setting); }

  SelfCheckAxis compare(const std::string& axis, const std::string& text, const Digests& expected,
                        const Digests& found) const {
    SelfCheckAxis result{axis, text, 0, 0, ""};
    for (const auto& [key, digest] : found) {
      const auto plain = expected.find(key);
      if (plain == expected.end()) throw std::logic_error("self check: a tensor the plain run lacks");
      ++result.compared;
      if (digest == plain->second) continue;
      if (result.differing++ == 0)
        result.first = hook_name(hooks_[std::get<0>(key)]) + ", token " +
                       std::to_string(std::get<2>(key));
    }
    if (result.compared == 0) throw std::logic_error("self check: nothing was compared");
    return result;
  }

 private:
  void watch(Hooks<float>& hooks, const Setting& setting, size_t own, Digests& digests) const {
    for (size_t i = 0; i < hooks_.size(); ++i) {
      if (is_attention(hooks_[i].point) && !setting.watch_attention) continue;
      hooks.add(hooks_[i], [&digests, i, own](const Activation<float>& a) {
        for (size_t r = 0; r < a.rows.size(); ++r) {
          if (a.rows[r].sequence != own) continue;
          // Keys after the position are unseen, and how many are computed depends on the chunk.
          const size_t width = is_attention(a.hook.point) ? a.rows[r].position + 1 : a.width;
          digests[{i, a.head, a.rows[r].position}] = hash_of(a.row(r), width);
        }
      });
    }
  }

  std::vector<Sequence<float>> start(const Forward<float>& forward, const Setting& setting) const {
    std::vector<Sequence<float>> batch;
    const auto part = [&](size_t begin, size_t end) {
      return std::vector<int>(tokens_.begin() + static_cast<long>(begin),
                              tokens_.begin() + static_cast<long>(end));
    };
    const size_t n = tokens_.size();
    if (setting.in_batch) batch.push_back(forward.start(part(n / 2, n)));
    batch.push_back(forward.start(tokens_));
    if (setting.in_batch) batch.push_back(forward.start(part(n / 3, n / 3 + 1)));
    return batch;
  }

  /// Runs the first half and a continuation of other tokens, and forgets the continuation.
  void fill_prefix(Forward<float>& forward, Sequence<float>& sequence) const {
    const size_t half = tokens_.size() / 2;
    std::vector<int> longer(tokens_.begin(), tokens_.begin() + static_cast<long>(half));
    longer.insert(longer.end(), 3, tokens_[0]);
    std::vector<Sequence<float>> batch;
    batch.push_back(std::move(sequence));
    batch[0].pending = longer;
    Hooks<float> none;
    forward.run(batch, none);
    sequence = std::move(batch[0]);
    sequence.cache.length = half;
    sequence.pending.assign(tokens_.begin() + static_cast<long>(half), tokens_.end());
  }

  const Model& model_;
  const std::vector<int>& tokens_;
  std::vector<Hook> hooks_;
};

struct NamedSetting {
  std::string axis, text;
  Setting setting;
};

std::vector<NamedSetting> settings_of_this_machine(size_t tokens) {
  std::vector<NamedSetting> all;
  const auto add = [&](const std::string& axis, const std::string& text, auto change) {
    Setting setting;
    change(setting);
    all.push_back({axis, text, setting});
  };
  for (const std::string& kernel : available_kernels())
    add("kernel", kernel, [&](Setting& s) { s.kernel = kernel; });
  for (size_t threads : {1, 2, 3, 7})
    add("threads", std::to_string(threads), [&](Setting& s) { s.threads = threads; });
  for (size_t chunk : {1, 7, 64})
    if (chunk < tokens)
      add("chunk", std::to_string(chunk), [&](Setting& s) { s.chunk = chunk; });
  add("decode", "from the second token", [](Setting& s) { s.decode_from = 1; });
  add("decode", "from the middle", [&](Setting& s) { s.decode_from = tokens / 2; });
  add("batch", "of three unequal lengths", [](Setting& s) { s.in_batch = true; });
  add("batch", "the same in chunks of 5", [](Setting& s) { s.in_batch = true, s.chunk = 5; });
  add("cache", "first half reused", [](Setting& s) { s.reuse_prefix = true; });
  return all;
}

/// What one run is worth (Progress).
double work_of(const Setting& setting, const ModelConfig& config, size_t tokens) {
  constexpr double spec = 12;  // times the vector kernels' time
  const size_t decoded = tokens - std::min(setting.decode_from, tokens);
  const size_t chunk = std::min(setting.chunk, tokens);
  const size_t passes = decoded + (tokens - decoded + chunk - 1) / chunk;
  double work = prefill_work(config, tokens, 1, 0, SIZE_MAX, tokens) +
                double(passes - 1) * prefill_work(config, 0);
  if (setting.kernel == "spec") work *= spec;
  if (setting.threads > 0 && setting.threads < thread_count())
    work *= double(thread_count()) / double(setting.threads);
  return work;
}

std::vector<float> values_of(const Model& model, const Model::Needed& tensor) {
  if (tensor.shape.size() == 1) return model.checkpoint().vector(tensor.name, tensor.shape[0]);
  const StoredMatrix matrix = model.checkpoint().matrix(tensor.name, tensor.shape);
  std::vector<float> values;
  values.reserve(matrix.rows * matrix.cols);
  for (size_t r = 0; r < matrix.rows; ++r) {
    const std::vector<float> row = widen_row(matrix, r);
    values.insert(values.end(), row.begin(), row.end());
  }
  return values;
}

Model::Needed find_tensor(const Model& model, const std::string& name) {
  for (const Model::Needed& tensor : model.needed_tensors())
    if (tensor.name == name) return tensor;
  throw InputError("--perturb " + quoted(name) + ": is no tensor of this model; expected a name as "
                   "model.layers.0.mlp.up_proj.weight[0] or 0.mlp.up_proj[0]");
}

WeightIndex largest_weight(const Model& model) {
  const std::string name = "model.layers.0.self_attn.v_proj.weight";
  const std::vector<float> values = values_of(model, find_tensor(model, name));
  const auto largest = std::max_element(values.begin(), values.end(), [](float a, float b) {
    return std::fabs(a) < std::fabs(b);
  });
  return {name, static_cast<size_t>(largest - values.begin())};
}

Model perturbed_by_one_ulp(const Model& model, const WeightIndex& weight) {
  std::vector<float> values = values_of(model, find_tensor(model, weight.tensor));
  float& value = values.at(weight.index);
  value = std::nextafter(value, INFINITY);
  Checkpoint checkpoint = model.checkpoint();
  checkpoint.replace(weight.tensor, std::move(values));
  return Model(std::move(checkpoint));
}

}  // namespace

bool SelfCheck::agrees() const {
  return control.differing > 0 && std::all_of(axes.begin(), axes.end(), [](const auto& axis) {
           return axis.differing == 0;
         });
}

WeightIndex parse_weight(const std::string& text, const Model& model) {
  const size_t open = text.rfind('[');
  size_t index = 0;
  const char* end = text.data() + text.size();
  const auto parsed = open == std::string::npos
                          ? std::from_chars_result{end, std::errc::invalid_argument}
                          : std::from_chars(text.data() + open + 1, end, index);
  if (parsed.ec != std::errc() || parsed.ptr + 1 != end || *parsed.ptr != ']')
    throw InputError("--perturb " + quoted(text) + ": expected a tensor and an index, as "
                     "0.mlp.up_proj[17]");
  std::string name = text.substr(0, open);
  if (!name.empty() && name[0] >= '0' && name[0] <= '9')
    name = "model.layers." + name + (name.ends_with(".bias") ? "" : ".weight");
  size_t elements = 1;
  for (uint64_t extent : find_tensor(model, name).shape) elements *= extent;
  if (index >= elements)
    throw InputError("--perturb " + quoted(text) + ": the tensor has elements 0 to " +
                     std::to_string(elements - 1));
  return {name, index};
}

SelfCheck check_self(const Model& model, const std::vector<int>& tokens, const WeightIndex* perturb,
                     Progress& progress) {
  const Runner runner(model, tokens);
  SelfCheck result;
  Setting watched;
  watched.watch_attention = true;
  const std::vector<NamedSetting> settings = settings_of_this_machine(tokens.size());
  const auto work = [&](const Setting& setting) { return work_of(setting, model.config(), tokens.size()); };
  double all = 3 * work(watched);  // plain, in chunks, with a weight moved
  for (const NamedSetting& s : settings) all += work(s.setting);
  progress.plan(all);
  progress.step("the plain run", work(watched));
  const Digests plain = runner.run(watched);
  for (const NamedSetting& s : settings) {
    progress.step(s.axis + " " + s.text, work(s.setting));
    result.axes.push_back(runner.compare(s.axis, s.text, plain, runner.run(s.setting)));
  }
  progress.step("attention watched, in chunks of 7", work(watched));
  watched.chunk = 7;
  result.axes.push_back(
      runner.compare("hooks", "attention watched, chunk 7", plain, runner.run(watched)));
  result.perturbed = perturb != nullptr ? *perturb : largest_weight(model);
  progress.step("one weight moved by one ulp", work(watched));
  result.control = runner.compare("control", "one weight moved by one ulp", plain,
                                  runner.run(perturbed_by_one_ulp(model, result.perturbed), {}));
  return result;
}

}  // namespace sinkref
