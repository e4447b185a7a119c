#include "python/interface.h"

#include <atomic>
#include <chrono>
#include <cstring>
#include <nlohmann/json.hpp>

#include "arithmetic/layers.h"
#include "base/json_file.h"
#include "base/threads.h"
#include "python/handles.h"
#include "sinkref/error.h"
#include "tokenizer/token_name.h"

using namespace sinkref;
using python::bytes_of;
using python::guarded;
using python::Opened;

namespace {

thread_local std::string last_error;

struct Interpreter {
  int (*ensure)() = nullptr;
  void (*release)(int) = nullptr;
  int (*check_signals)() = nullptr;
  void (*fetch)(void**, void**, void**) = nullptr;
  void (*restore)(void*, void*, void*) = nullptr;
} interpreter;

struct PyException {
  void *type = nullptr, *value = nullptr, *traceback = nullptr;
};
thread_local PyException raised;

constexpr auto between_checks = std::chrono::milliseconds(50);

std::string described(const Model& model) {
  const ModelConfig& c = model.config();
  nlohmann::ordered_json j = {{"path", model.checkpoint().path().string()},
                              {"config",
                               {{"model_type", c.model_type},
                                {"n_layers", c.layers},
                                {"d_model", c.hidden_size},
                                {"n_heads", c.heads},
                                {"n_key_value_heads", c.kv_heads},
                                {"d_head", c.head_dim},
                                {"d_mlp", c.intermediate_size},
                                {"d_vocab", c.vocab_size},
                                {"n_ctx", c.max_positions},
                                {"eps", c.rms_norm_eps},
                                {"rope_theta", c.rope.theta},
                                {"sliding_window", nullptr},
                                {"tied_output", c.tied_output},
                                {"bos_id", nullptr},
                                {"eos_ids", c.eos_ids},
                                {"notes", c.notes}}}};
  if (c.sliding_window) j["config"]["sliding_window"] = *c.sliding_window;
  if (c.bos_id) j["config"]["bos_id"] = *c.bos_id;
  for (const Hook hook : all_hooks(c.layers))
    j["hooks"].push_back({{"name", hook_name(hook)},
                          {"shape", hook_shape(hook.point, c)},
                          {"attention", is_attention(hook.point)},
                          {"meaning", hook_info(hook.point).meaning},
                          {"layer", is_in_block(hook.point) ? nlohmann::ordered_json(hook.layer) : nullptr}});
  for (const Model::Needed& tensor : model.needed_tensors()) j["tensors"][tensor.name] = tensor.shape;
  return json_text(j, -1);
}

Tokenizer& tokenizer_of(Opened& opened) {
  if (!opened.tokenizer) opened.tokenizer = Tokenizer::open(opened.model.checkpoint());
  return *opened.tokenizer;
}

/// f(row of the activation, its place in a contiguous array), for all rows: the engine's threads wait meanwhile.
template <class T, class F>
void each_row(const sinkref_activation& a, const F& f) {
  parallel_for(a.heads * a.rows, [&](size_t i) {
    f(static_cast<T*>(a.values) + i / a.rows * a.head_stride + i % a.rows * a.stride, i * a.width);
  }, threads_pay_from);
}

template <class T>
void read_as(const sinkref_activation& a, T* to) {
  each_row<T>(a, [&](const T* row, size_t place) { std::copy_n(row, a.width, to + place); });
}

template <class T>
void write_as(const sinkref_activation& a, bool may_be_masked, const T* from) {
  std::atomic<bool> changed = false;
  each_row<T>(a, [&](const T* row, size_t place) {
    if (std::memcmp(row, from + place, a.width * sizeof(T)) != 0) changed = true;
  });
  if (!changed) return;
  T* to = static_cast<T*>(a.values);
  for (size_t head = 0; head < a.heads; ++head)
    for (size_t r = 0; r < a.rows; ++r) {
      const T* row = from + (head * a.rows + r) * a.width;
      T* out = to + head * a.head_stride + r * a.stride;
      if (std::memcmp(row, out, a.width * sizeof(T)) == 0) continue;
      for (size_t i = 0; i < a.width; ++i) {
        const bool masked = may_be_masked && row[i] == -std::numeric_limits<T>::infinity();
        if (std::isfinite(row[i]) || masked) continue;
        refuse("the hook's array",
               std::string("holds ") + (std::isnan(row[i]) ? "NaN" : "an infinity") + " at position " +
                   std::to_string(a.first_position + r) + ", element " + std::to_string(i) +
                   (a.heads > 1 ? " of head " + std::to_string(head) : "") + ", expected finite numbers",
               "see what the hook computes");
      }
      std::copy_n(row, a.width, out);
    }
}

}  // namespace

namespace sinkref::python {

sinkref_status guarded(const std::function<void()>& f) {
  try {
    f();
    return sinkref_done;
  } catch (const Stopped& stopped) {
    last_error = "the run was stopped";
    return stopped.status;
  } catch (const InputError& error) {
    last_error = error.what();
    return sinkref_input_error;
  } catch (const std::bad_alloc&) {
    last_error = "out of memory; give a shorter input or ask for fewer activations";
    return sinkref_no_memory;
  } catch (const std::exception& error) {
    last_error = error.what();
    return sinkref_defect;
  } catch (...) {
    last_error = "an unknown exception";
    return sinkref_defect;
  }
}

void check_signals() {
  using Clock = std::chrono::steady_clock;
  thread_local Clock::time_point next{};
  if (interpreter.ensure == nullptr || Clock::now() < next) return;
  const int lock = interpreter.ensure();
  const bool interrupted = interpreter.check_signals() != 0;
  if (interrupted) interpreter.fetch(&raised.type, &raised.value, &raised.traceback);
  interpreter.release(lock);
  next = Clock::now() + between_checks;
  if (interrupted) throw Stopped{sinkref_signal};
}

}  // namespace sinkref::python

const char* sinkref_error() { return last_error.c_str(); }
const char* sinkref_version() { return SINKREF_VERSION; }
int sinkref_arithmetic_version() { return arithmetic_version; }
void sinkref_set_threads(size_t threads) { set_thread_count(threads); }
size_t sinkref_threads() { return thread_count(); }

void sinkref_set_interpreter(int (*ensure)(), void (*release)(int), int (*check)(),
                             void (*fetch)(void**, void**, void**), void (*restore)(void*, void*, void*)) {
  interpreter = {ensure, release, check, fetch, restore};
}

void sinkref_raise() {
  const PyException error = std::exchange(raised, {});
  interpreter.restore(error.type, error.value, error.traceback);
}

int sinkref_open(const char* path, const char* kernel, int fp64, int softmax_one, sinkref_model** model) {
  return guarded([&] {
    require_fma();
    RunOptions options;
    options.kernel = kernel;
    options.softmax = softmax_one ? Softmax::one : Softmax::standard;
    if (fp64) find_kernels<double>(kernel);
    else find_kernels<float>(kernel);
    auto opened = std::make_shared<Opened>(path, options, fp64 != 0);
    opened->description = described(opened->model);
    *model = new sinkref_model{std::move(opened)};
  });
}

void sinkref_close(sinkref_model* model) { delete model; }

const char* sinkref_describe(const sinkref_model* model) { return model->opened->description.c_str(); }

int sinkref_select(const sinkref_model* model, const char* globs, const char* where, sinkref_buffer** indices) {
  return guarded([&] {
    const size_t layers = model->opened->model.config().layers;
    std::vector<size_t> chosen;
    for (const Hook hook : select_hooks(globs, layers, where)) chosen.push_back(hook_index(hook, layers));
    *indices = new sinkref_buffer{bytes_of<size_t>(chosen)};
  });
}

int sinkref_encode(sinkref_model* model, const char* text, size_t bytes, int bos, sinkref_buffer** ids) {
  return guarded([&] {
    const std::lock_guard lock(model->opened->tokenizer_used);
    const BosPolicy policy = bos < 0 ? BosPolicy::automatic : bos > 0 ? BosPolicy::on : BosPolicy::off;
    const std::vector<int> all = tokenizer_of(*model->opened).encode({text, bytes}, policy);
    *ids = new sinkref_buffer{bytes_of<int>(all)};
  });
}

int sinkref_decode(sinkref_model* model, const int32_t* ids, size_t count, sinkref_buffer** text) {
  return guarded([&] {
    const std::lock_guard lock(model->opened->tokenizer_used);
    Tokenizer& tokenizer = tokenizer_of(*model->opened);
    for (size_t i = 0; i < count; ++i)
      if (ids[i] < 0 || static_cast<size_t>(ids[i]) >= tokenizer.vocab_size())
        refuse("to_string",
               "token id " + std::to_string(ids[i]) + " is not in the vocabulary, expected 0 to " +
                   std::to_string(tokenizer.vocab_size() - 1),
               "to_tokens gives the ids of a text");
    *text = new sinkref_buffer{tokenizer.decode({ids, count})};
  });
}

int sinkref_token_name(sinkref_model* model, size_t id, sinkref_buffer** name) {
  return guarded([&] {
    const std::lock_guard lock(model->opened->tokenizer_used);
    *name = new sinkref_buffer{token_name(tokenizer_of(*model->opened), id)};
  });
}

int sinkref_weight(const sinkref_model* model, const char* name, float* values) {
  return guarded([&] {
    const Model& m = model->opened->model;
    for (const Model::Needed& tensor : m.needed_tensors()) {
      if (tensor.name != name) continue;
      if (tensor.shape.size() == 1) {
        const std::vector<float> all = m.checkpoint().vector(name, tensor.shape[0]);
        std::copy(all.begin(), all.end(), values);
        return;
      }
      const StoredMatrix matrix = m.checkpoint().matrix(name, tensor.shape);
      parallel_for(matrix.rows, [&](size_t r) {
        widen(matrix.dtype, matrix.row(r), 0, matrix.cols, values + r * matrix.cols);
      });
      return;
    }
    refuse(m.checkpoint().path().string(), "has no tensor " + quoted(name), "ask for one of Model.tensors");
  });
}

size_t sinkref_buffer_bytes(const sinkref_buffer* buffer) { return buffer->bytes.size(); }
const void* sinkref_buffer_data(const sinkref_buffer* buffer) { return buffer->bytes.data(); }
void sinkref_buffer_free(sinkref_buffer* buffer) { delete buffer; }

int sinkref_start(const sinkref_model* model, sinkref_state** state) {
  return guarded([&] {
    const std::shared_ptr<Opened>& opened = model->opened;
    const ModelConfig& c = opened->model.config();
    if (opened->fp64)
      *state = new sinkref_state{opened, Sequence<double>{KvCache<double>(c, c.layers, 0), {}}, {}};
    else
      *state = new sinkref_state{opened, Sequence<float>{KvCache<float>(c, c.layers, 0), {}}, {}};
  });
}

int sinkref_fork(sinkref_state* state, size_t positions, sinkref_state** copy) {
  return guarded([&] {
    if (state->busy.test_and_set()) refuse("fork", "the state is being run", "wait for the run's end");
    const std::shared_ptr<void> free(nullptr, [&](void*) { state->busy.clear(); });
    std::visit(
        [&](const auto& sequence) {
          if (positions > sequence.cache.length)
            refuse("fork", std::to_string(positions) + " positions, expected at most the state's " +
                   std::to_string(sequence.cache.length), "append tokens first");
          auto own = sequence;
          own.cache = sequence.cache.beginning(positions, positions);
          *copy = new sinkref_state{state->opened, std::move(own), {}};
        },
        state->sequence);
  });
}

void sinkref_state_close(sinkref_state* state) { delete state; }

size_t sinkref_state_length(const sinkref_state* state) {
  return std::visit([](const auto& sequence) { return sequence.cache.length; }, state->sequence);
}

void sinkref_read(const sinkref_activation* activation, int fp64, void* values) {
  if (fp64) read_as(*activation, static_cast<double*>(values));
  else read_as(*activation, static_cast<float*>(values));
}

int sinkref_write(const sinkref_activation* activation, int fp64, int may_be_masked, const void* values) {
  return guarded([&] {
    if (fp64) write_as(*activation, may_be_masked != 0, static_cast<const double*>(values));
    else write_as(*activation, may_be_masked != 0, static_cast<const float*>(values));
  });
}
