// A run for Python: captures, functions that change activations, greedy continuation, log-probabilities.

#include <algorithm>
#include <limits>

#include "eval/eval.h"
#include "model/not_finite.h"
#include "python/handles.h"
#include "sinkref/error.h"
#include "sinkref/interventions.h"
#include "sinkref/sweep.h"

namespace sinkref::python {

void Opened::load_layers() const {
  std::call_once(layers_loaded, [&] {
    for (size_t layer = 0; layer < model.config().layers; ++layer) model.layer(layer);
  });
}

Hook hook_of(const char* name, const Model& model) {
  return select_hooks(name, model.config().layers, "hook").at(0);
}

namespace {

std::vector<HookIntervention> interventions_of(const sinkref_run& run, const ModelConfig& config) {
  if (run.interventions == nullptr) return {};
  const GivenReader read = [&](const std::string& file, const std::string& hook) -> GivenValues {
    if (!file.starts_with('&')) return read_given(file, hook);
    const bool is_number = file.size() > 1 && file.size() < 9 && file.find_first_not_of("0123456789", 1) == file.npos;
    const size_t i = is_number ? std::stoul(file.substr(1)) : run.given;
    if (i >= run.given) refuse("interventions", "found " + quoted(file) + ", expected a file", "name one");
    GivenValues given{{run.given_shapes[i], run.given_shapes[i] + run.given_dimensions[i]}, {}, {}};
    size_t count = 1;
    for (const size_t extent : given.shape) count *= extent;
    given.values.assign(run.given_values[i], run.given_values[i] + count);
    return given;
  };
  return parse_interventions(run.interventions, "interventions", config, read);
}

/// Where the rows of a run go in its arrays.
struct Places {
  size_t before;                ///< positions of the state before the run
  size_t count;                 ///< positions kept of each sequence
  std::vector<size_t> slot_of;  ///< of each position of the run; `dropped`: not kept
  size_t keys;
  static constexpr size_t dropped = SIZE_MAX;

  size_t slot(const Row& row) const {
    const size_t p = row.position - before;
    return p < slot_of.size() ? slot_of[p] : dropped;
  }
};

Places places_of(const sinkref_run& run, size_t before, size_t longest) {
  Places places{before, run.position == nullptr ? longest : run.positions, {}, run.keys};
  places.slot_of.assign(longest, Places::dropped);
  for (size_t i = 0; i < places.count; ++i)
    places.slot_of.at(run.position == nullptr ? i : run.position[i]) = i;
  return places;
}

/// The values of one head, or of a point that has no heads.
template <class T>
void keep_rows(const Activation<T>& a, const T* values, size_t first_slot, const Places& places, T* out) {
  const bool attention = is_attention(a.hook.point);
  const size_t width = attention ? places.keys : a.width;
  for (size_t r = 0; r < a.rows.size(); ++r) {
    const size_t slot = places.slot(a.rows[r]);
    if (slot == Places::dropped) continue;
    T* row = out + (first_slot + slot) * width;
    std::copy_n(values + r * a.stride, a.width, row);
    if (attention)  // keys that no step has reached yet are unseen
      std::fill(row + a.width, row + width,
                a.hook.point == HookPoint::Pattern ? T(0) : -std::numeric_limits<T>::infinity());
  }
}

template <class T>
void add_capture(Hook hook, T* out, const Places& places, size_t heads, bool whole, Hooks<T>& hooks) {
  if (!is_attention(hook.point)) {
    hooks.add(hook, [=, &places](const Activation<T>& a) {
      for (size_t r = 0; r < a.rows.size();) {  // those of a sequence together
        size_t end = r;
        while (end < a.rows.size() && a.rows[end].sequence == a.rows[r].sequence) ++end;
        keep_rows<T>({hook, a.rows.subspan(r, end - r), a.width, a.row(r), a.stride, 0}, a.row(r),
                     a.rows[r].sequence * places.count, places, out);
        r = end;
      }
    });
    return;
  }
  hooks.add(hook, [=, &places](const Activation<T>& a) {
    const size_t sequence = a.rows.front().sequence;
    if (!whole) return keep_rows(a, a.values, (sequence * heads + a.head) * places.count, places, out);
    if (a.head + 1 < heads) return;  // functions may still change them
    for (size_t head = 0; head < heads; ++head)
      keep_rows<T>(a, a.values - (heads - 1 - head) * a.rows.size() * a.stride,
                   (sequence * heads + head) * places.count, places, out);
  });
}

template <class T>
void add_function(Hook hook, size_t index, sinkref_function function, size_t heads, Hooks<T>& hooks) {
  hooks.add(hook, [=](const Activation<T>& a) {
    const bool attention = is_attention(hook.point);
    if (attention && a.head + 1 < heads) return;
    const size_t head_stride = attention ? a.rows.size() * a.stride : 0, shown = attention ? heads : 1;
    const sinkref_activation values{index, a.rows.front().sequence, a.rows.front().position, shown,
                                    a.rows.size(), a.width, a.stride, head_stride,
                                    a.values - (shown - 1) * head_stride};
    if (function(&values) != 1) throw Stopped{sinkref_stopped};
  });
}

/// A state's sequence while it is run. A run that fails leaves it as it was.
template <class T>
class Borrowed {
 public:
  Borrowed(sinkref_state& state) : state_(state), own_(std::get<Sequence<T>>(state.sequence)) {
    if (state_.busy.test_and_set())
      refuse("the state", "is being run, expected one run at a time", "fork it for the other");
    length_ = own_.cache.length;
    kept_ = own_.cache.kept;
  }
  ~Borrowed() {
    if (sequence_ != nullptr) own_ = std::move(*sequence_);
    own_.pending.clear();
    if (!done_) {
      own_.cache.length = length_;
      own_.cache.kept = std::move(kept_);
    }
    state_.busy.clear();
  }
  Borrowed(const Borrowed&) = delete;
  Borrowed& operator=(const Borrowed&) = delete;

  size_t length() const { return length_; }
  /// It is run here, and goes back to the state at the end.
  void lend(std::vector<Sequence<T>>& batch, std::vector<int> tokens) {
    own_.pending = std::move(tokens);
    batch.push_back(std::move(own_));
    sequence_ = &batch.front();
  }
  void done() { done_ = true; }

 private:
  sinkref_state& state_;
  Sequence<T>& own_;
  Sequence<T>* sequence_ = nullptr;
  size_t length_;
  KeptValues kept_;
  bool done_ = false;
};

template <class T>
void run_as(const Opened& opened, sinkref_run& run) {
  const Model& model = opened.model;
  const ModelConfig& c = model.config();
  opened.load_layers();

  std::vector<std::vector<int>> tokens;
  size_t longest = 0;
  const int32_t* at = run.tokens;
  for (size_t s = 0; s < run.sequences; ++s) {
    tokens.emplace_back(at, at + run.lengths[s]);
    at += run.lengths[s];
    longest = std::max(longest, run.lengths[s]);
  }
  std::vector<Sequence<T>> batch;  // outlives what is borrowed
  std::optional<Borrowed<T>> borrowed;
  if (run.state != nullptr) borrowed.emplace(*run.state);
  const size_t before = borrowed ? borrowed->length() : 0;
  for (const std::vector<int>& sequence : tokens) check_tokens(model, sequence, before);
  const Places places = places_of(run, before, longest + run.generate);

  RunOptions options = opened.options;
  options.chunk = std::max<size_t>(run.chunk, 1);
  Hooks<T> hooks;
  std::vector<size_t> prompts;
  for (const std::vector<int>& sequence : tokens) prompts.push_back(before + sequence.size());
  // What comes later to a state may be meant.
  add_interventions(interventions_of(run, c), prompts, hooks, run.state != nullptr ? c.max_positions : run.generate);
  for (size_t i = 0; i < run.functions; ++i) {
    const Hook hook = hook_of(run.function_names[i], model);
    options.whole_patterns |= is_attention(hook.point);
    add_function(hook, i, run.function, c.heads, hooks);
  }
  if (options.whole_patterns && options.kernel == "spec")
    refuse("kernel \"spec\"", "shows scores and pattern one head at a time, expected them to be changed by no function",
           "use kernel \"auto\", whose bits are the same");
  for (size_t i = 0; i < run.captures; ++i)
    add_capture(hook_of(run.capture_names[i], model), static_cast<T*>(run.capture_values[i]), places, c.heads,
                options.whole_patterns, hooks);
  if (run.log_probs != nullptr) add_log_probs(find_kernels<T>(options.kernel), run.targets, before, run.log_probs, hooks);

  Extent extent = extent_of(hooks, c);
  if (borrowed) extent.end_block = c.layers;  // a state has all keys and values
  if (run.last_logits != nullptr || run.generate > 0) {
    extent.end_block = c.layers;
    extent.logits = LogitRows::last;
  }
  for (size_t layer = 0; layer + 1 < extent.end_block; ++layer)
    hooks.add({HookPoint::ResidPost, layer}, [](const Activation<T>&) { check_signals(); });
  options.progress = [](size_t, size_t) { check_signals(); };

  Forward<T> forward(model, options, extent);
  if (borrowed) borrowed->lend(batch, tokens[0]);
  else
    for (std::vector<int>& sequence : tokens) batch.push_back(forward.start(std::move(sequence)));
  size_t first_kept = 0;  // the logits before it nobody asks for
  if (run.position != nullptr && run.positions > 0 && run.functions == 0)
    first_kept = *std::min_element(run.position, run.position + run.positions);
  for (Sequence<T>& sequence : batch) {
    sequence.logits_from = before + first_kept;
    sequence.cache.reserve(std::min(before + longest + run.generate, c.max_positions));
  }
  Matrix<T> logits = forward.run(batch, hooks, run.prompt != 0);
  if (run.last_logits != nullptr)
    std::copy(logits.values.begin(), logits.values.end(), static_cast<T*>(run.last_logits));
  if (run.generate > 0) {
    const auto each = [&](int token) {
      check_signals();
      if (run.each != nullptr && run.each(token) != 1) throw Stopped{sinkref_stopped};
    };
    const Greedy greedy = continue_greedily(forward, batch, std::move(logits), run.generate, hooks, each)[0];
    std::copy(greedy.tokens.begin(), greedy.tokens.end(), run.generated);
    run.generated_count = greedy.tokens.size();
    // The last token was chosen and not yet run: its activations, and a state's keys and values.
    const size_t all = before + longest + greedy.tokens.size();
    if ((borrowed || run.captures > 0) && batch[0].cache.length < all && all <= c.max_positions) {
      batch[0].pending = {greedy.tokens.back()};
      forward.run(batch, hooks, false);
    }
  }
  hooks.require_all_called();
  if (borrowed) borrowed->done();
}

template <class T>
void sweep_as(const Opened& opened, const sinkref_sweep& s) {
  opened.load_layers();
  PatchSweep sweep;
  sweep.point = all_hooks(1).at(s.point).point;
  sweep.layers.assign(s.layer, s.layer + s.layers);
  sweep.positions.assign(s.position, s.position + s.positions);
  sweep.by_head = s.by_head != 0;
  sweep.observed = hook_of(s.observed, opened.model);
  sweep.observed_position = s.observed_position;
  sweep.each_block = check_signals;
  patch_sweep<T>(opened.model, opened.options, {s.tokens, s.tokens + s.length}, {s.source, s.source + s.source_length},
                 sweep, [&](size_t first, const Matrix<T>& rows) {
                   const sinkref_rows cells{first, rows.rows, rows.values.data()};
                   if (s.result(&cells) != 1) throw Stopped{sinkref_stopped};
                 });
}

}  // namespace

}  // namespace sinkref::python

int sinkref_run_sweep(const sinkref_model* model, const sinkref_sweep* sweep) {
  using namespace sinkref::python;
  return guarded([&] {
    const std::shared_ptr<Opened> opened = model->opened;
    opened->fp64 ? sweep_as<double>(*opened, *sweep) : sweep_as<float>(*opened, *sweep);
  });
}

int sinkref_interventions(const sinkref_model* model, const sinkref_run* run, sinkref_buffer** text) {
  using namespace sinkref::python;
  return guarded([&] {
    *text = new sinkref_buffer{interventions_text(interventions_of(*run, model->opened->model.config()))};
  });
}

int sinkref_changed_hooks(const sinkref_model* model, const sinkref_run* run, size_t position,
                          sinkref_buffer** indices) {
  using namespace sinkref;
  using namespace sinkref::python;
  return guarded([&] {
    const ModelConfig& c = model->opened->model.config();
    std::vector<size_t> changed;
    for (const HookIntervention& one : interventions_of(*run, c))
      if (may_change(one, position, run->lengths[0])) changed.push_back(hook_index(one.hook, c.layers));
    *indices = new sinkref_buffer{bytes_of<size_t>(changed)};
  });
}

int sinkref_run_model(const sinkref_model* model, sinkref_run* run) {
  using namespace sinkref;
  using namespace sinkref::python;
  return guarded([&] {
    const std::shared_ptr<Opened> opened = model->opened;
    try {
      opened->fp64 ? run_as<double>(*opened, *run) : run_as<float>(*opened, *run);
    } catch (const NotFinite& error) {
      if (run->functions == 0 && run->interventions == nullptr) throw;
      throw InputError(std::string(error.what()) + ", or see what the hooks and interventions write");
    }
  });
}
