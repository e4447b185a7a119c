#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "python/interface.h"
#include "sinkref/forward.h"
#include "sinkref/tokenizer.h"

// What stands behind the handles.

namespace sinkref::python {

/// A model with the options of its runs. Any thread may run it.
struct Opened {
  Opened(const char* path, RunOptions run_options, bool double_precision)
      : model(Model::open(path)), options(std::move(run_options)), fp64(double_precision) {}
  const Model model;
  const RunOptions options;
  const bool fp64;
  std::string description;
  /// What threads share is only read from here on.
  void load_layers() const;
  mutable std::once_flag layers_loaded;
  std::mutex tokenizer_used;
  std::unique_ptr<Tokenizer> tokenizer;  ///< when it is first asked for
};

/// A run was ended by a callback or a signal.
struct Stopped {
  sinkref_status status;
};

/// The hook of a whole name.
Hook hook_of(const char* name, const Model& model);

/// Runs f; what it throws becomes a status and the message of sinkref_error().
sinkref_status guarded(const std::function<void()>& f);

template <class Number>
std::string bytes_of(std::span<const Number> numbers) {
  return {reinterpret_cast<const char*>(numbers.data()), numbers.size_bytes()};
}

/// Throws Stopped if a signal's handler of the interpreter raises an exception.
void check_signals();

}  // namespace sinkref::python

struct sinkref_model {
  std::shared_ptr<sinkref::python::Opened> opened;
};

struct sinkref_state {
  std::shared_ptr<sinkref::python::Opened> opened;
  std::variant<sinkref::Sequence<float>, sinkref::Sequence<double>> sequence;
  std::atomic_flag busy;
};

struct sinkref_buffer {
  std::string bytes;
};
