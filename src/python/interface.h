#pragma once

// The C interface under the Python package: what ctypes calls. Plain structs, opaque handles, a status for
// an answer; no exception leaves it. One library so serves every Python.

#include <cstddef>
#include <cstdint>

#define SINKREF_API extern "C" __attribute__((visibility("default")))

/// What a call comes to. For all but `done`, sinkref_error() has the message; for `signal`,
/// sinkref_raise() has the exception.
enum sinkref_status : int {
  sinkref_done,
  sinkref_input_error,
  sinkref_stopped,  ///< by a hook or another callback that did not return 1
  sinkref_signal,   ///< by the exception of a signal's handler: KeyboardInterrupt
  sinkref_no_memory,
  sinkref_defect,
};

struct sinkref_model;
struct sinkref_state;   ///< the KV cache of one sequence
struct sinkref_buffer;  ///< bytes of a result

/// Values at one hook while they are being computed; what is changed in them the model goes on with.
/// value [h, r, i] lies at values + h * head_stride + r * stride + i.
struct sinkref_activation {
  size_t function;  ///< its place among the run's functions
  size_t sequence, first_position;
  size_t heads;  ///< of scores and pattern, else 1
  size_t rows, width;
  size_t stride, head_stride;
  void* values;  ///< float, or double for fp64
};

/// 1 to go on, anything else to stop.
using sinkref_function = int (*)(const sinkref_activation*);
using sinkref_token = int (*)(int32_t);

/// A run of one state, or of fresh sequences side by side.
struct sinkref_run {
  sinkref_state* state;  ///< that is continued, or none: sequences that begin here
  size_t sequences;
  const int32_t* tokens;  ///< of all sequences, one after the other
  const size_t* lengths;
  int prompt;  ///< 0: the tokens are a continuation (decode), which the paper's patch tells apart
  size_t chunk;

  /// Arrays [b, p, …] or [b, H, p, keys] that are filled; unwritten numbers stay.
  size_t captures;
  const char* const* capture_names;
  void* const* capture_values;
  size_t keys;              ///< of scores and pattern: the length of the last axis
  size_t positions;         ///< of each sequence are kept
  const size_t* position;   ///< which, counted from the run's first; none: all, of the longest sequence

  size_t functions;
  const char* const* function_names;
  sinkref_function function;

  /// In the grammar of --intervene; the file "&N" is the given array N, of doubles.
  const char* interventions;
  size_t given;
  const double* const* given_values;
  const size_t* const* given_shapes;
  const size_t* given_dimensions;

  void* last_logits;   ///< [b, V], or none
  size_t generate;     ///< this many tokens at most follow, greedily (one sequence)
  int32_t* generated;
  size_t generated_count;  ///< is written
  sinkref_token each;      ///< is told every token, or none

  const int32_t* targets;  ///< [lengths[0]]: the tokens whose log-probability is asked (one sequence), or none
  double* log_probs;       ///< [lengths[0]]
};

SINKREF_API const char* sinkref_error();
SINKREF_API const char* sinkref_version();
SINKREF_API int sinkref_arithmetic_version();
SINKREF_API void sinkref_set_threads(size_t threads);
SINKREF_API size_t sinkref_threads();

/// Functions of the interpreter, so that a signal ends a run: PyGILState_Ensure, PyGILState_Release,
/// PyErr_CheckSignals, PyErr_Fetch, PyErr_Restore.
SINKREF_API void sinkref_set_interpreter(int (*ensure)(), void (*release)(int), int (*check_signals)(),
                                         void (*fetch)(void**, void**, void**),
                                         void (*restore)(void*, void*, void*));
/// With the interpreter's lock: raises what ended this thread's run with sinkref_signal.
SINKREF_API void sinkref_raise();

SINKREF_API int sinkref_open(const char* path, const char* kernel, int fp64, int softmax_one, sinkref_model** model);
SINKREF_API void sinkref_close(sinkref_model* model);
/// Configuration, hooks and tensors as JSON.
SINKREF_API const char* sinkref_describe(const sinkref_model* model);
/// Indices of the hooks (size_t) that comma-separated globs choose. `where` begins the message of an error.
SINKREF_API int sinkref_select(const sinkref_model* model, const char* globs, const char* where,
                               sinkref_buffer** indices);
SINKREF_API int sinkref_encode(sinkref_model* model, const char* text, size_t bytes, int bos, sinkref_buffer** ids);
SINKREF_API int sinkref_decode(sinkref_model* model, const int32_t* ids, size_t count, sinkref_buffer** text);
/// What a table calls a token, as patch-sweep's JSON does.
SINKREF_API int sinkref_token_name(sinkref_model* model, size_t id, sinkref_buffer** name);
/// A tensor under its Hugging Face name, as fp32.
SINKREF_API int sinkref_weight(const sinkref_model* model, const char* name, float* values);

SINKREF_API size_t sinkref_buffer_bytes(const sinkref_buffer* buffer);
SINKREF_API const void* sinkref_buffer_data(const sinkref_buffer* buffer);
SINKREF_API void sinkref_buffer_free(sinkref_buffer* buffer);

SINKREF_API int sinkref_start(const sinkref_model* model, sinkref_state** state);
/// A copy of the first `positions`.
SINKREF_API int sinkref_fork(sinkref_state* state, size_t positions, sinkref_state** copy);
SINKREF_API void sinkref_state_close(sinkref_state* state);
SINKREF_API size_t sinkref_state_length(const sinkref_state* state);

/// A run that fails leaves the state as it was.
SINKREF_API int sinkref_run_model(const sinkref_model* model, sinkref_run* run);

/// Rows of the observed hook, cells [first, first + cells).
struct sinkref_rows {
  size_t first, cells;
  const void* values;
};
using sinkref_cells = int (*)(const sinkref_rows*);  ///< 1 to go on

/// Activation patching (include/sinkref/sweep.h).
struct sinkref_sweep {
  const int32_t* tokens;
  const int32_t* source;
  size_t length, source_length;
  size_t layers, positions;
  const size_t* layer;
  const size_t* position;
  size_t point;  ///< the hook of layer 0 that sinkref_block_point() gave
  int by_head;
  const char* observed;
  size_t observed_position;
  sinkref_cells result;
};
SINKREF_API int sinkref_run_sweep(const sinkref_model* model, const sinkref_sweep* sweep);
/// The hook of layer 0 that a name without its layer stands for: "hook_resid_pre", "resid_pre".
SINKREF_API int sinkref_block_point(const sinkref_model* model, const char* name, const char* where, size_t* index);

/// The roundings that a term of a chain (include/sinkref/number.h) of so many terms goes through.
SINKREF_API size_t sinkref_chain_roundings(size_t terms);

/// As JSON, the metrics' names with how many tokens each is of.
SINKREF_API const char* sinkref_metrics();
/// InputError for a metric of tokens where the observed hook is not the logits.
SINKREF_API int sinkref_check_observed(const sinkref_model* model, const char* metric, const char* observed);
/// A metric (include/sinkref/metric.h) of rows [count, width], of doubles for fp64, else of floats.
SINKREF_API int sinkref_measure(const char* metric, size_t token, size_t other, const void* rows, size_t count,
                                size_t width, int fp64, double* values);

/// The logit lens (include/sinkref/lens.h): logits [layers, positions, V].
SINKREF_API int sinkref_lens(const sinkref_model* model, const int32_t* tokens, size_t length, const size_t* position,
                             size_t positions, void* logits);

/// The split of an attention score (include/sinkref/attribution.h). `about`: labels, score and bound as JSON;
/// `values`: doubles [query writers, key writers].
SINKREF_API int sinkref_attribute_score(const sinkref_model* model, const int32_t* tokens, size_t length, size_t layer,
                                        size_t head, size_t query, size_t key, int by_head, sinkref_buffer** about,
                                        sinkref_buffer** values);

/// Indices (size_t) of the hooks that a run's interventions may change at one position of its first sequence.
SINKREF_API int sinkref_changed_hooks(const sinkref_model* model, const sinkref_run* run, size_t position,
                                      sinkref_buffer** indices);

/// The interventions of a run as one text, each FILE named by the SHA-256 of its numbers.
SINKREF_API int sinkref_interventions(const sinkref_model* model, const sinkref_run* run, sinkref_buffer** text);

/// Copies an activation to a contiguous array, and back where the array differs. InputError for numbers
/// that are not finite (scores may be -inf).
SINKREF_API void sinkref_read(const sinkref_activation* activation, int fp64, void* values);
SINKREF_API int sinkref_write(const sinkref_activation* activation, int fp64, int may_be_masked,
                              const void* values);
