#pragma once

#include <any>
#include <map>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <typeindex>
#include <vector>

#include "base/progress.h"
#include "certify/prover.h"
#include "measure/kept.h"
#include "measure/observe.h"
#include "measure/repeats/repeats.h"
#include "measure/stimuli/stimuli.h"
#include "sinkref/sink.h"

// What is run on what, and what came out. The sinks and the runs of one word are what most panels
// read: they are measured here, so that no sequence is run twice.

namespace sinkref {

/// How the report was asked for, as its commands can be typed again. All of it is quoted for a shell.
struct Request {
  std::string program = "sinkref";     ///< as it was called
  std::string model = "MODEL";         ///< the path, whole
  std::string inputs = {};             ///< " --word the --repeats 40": what sink and first-layer take too
  std::string patch = {};              ///< " --patch …", which first-layer does not take
  std::string report_only = {};        ///< " --paper … --golden … --certify"
};

struct Experiment {
  const Model& model;
  std::string model_name;  ///< file or folder name
  RunOptions run;
  Stimuli stimuli;
  std::string precision = "fp32";    ///< of the first layer's sums: fp32 or fp64
  std::optional<std::string> paper;  ///< the row of the paper's table to stand beside
  std::vector<std::string> goldens;  ///< files to compare with
  Request request = {};
  Prover prover = {};  ///< if decisive comparisons are to be proved
  /// Told what is being done, for a person who waits.
  std::shared_ptr<Progress> progress = std::make_shared<Progress>();
};

/// The sinks and the runs, and the result of every panel that has one, by its type.
class Results {
 public:
  LayerNorms norms;
  std::vector<SinkLayer> sinks;  ///< strongest first
  std::vector<Neurons> patch;    ///< Stimuli::patch, or the neurons of all sinks
  std::vector<RepeatRun> runs;   ///< every condition and word; the usual condition patched too

  /// The run of a word in a condition, or nullptr.
  const RepeatRun* run_of(const std::string& word, const std::string& condition, bool patched) const;

  template <class T>
  T& put(T result) {
    return by_type_[typeid(T)].template emplace<T>(std::move(result));
  }
  /// nullptr where there is none: the panel was not asked for, or there was nothing to measure.
  template <class T>
  const T* find() const {
    const auto at = by_type_.find(typeid(T));
    return at == by_type_.end() ? nullptr : std::any_cast<T>(&at->second);
  }
  template <class T>
  const T& get() const {
    if (const T* result = find<T>()) return *result;
    throw std::logic_error(std::string("no result of type ") + typeid(T).name());
  }

 private:
  std::map<std::type_index, std::any> by_type_;
};

/// What measure_sinks() is worth (Progress).
double sinks_work(const Experiment& experiment);
/// Norms, sinks and the patch.
void measure_sinks(const Experiment& experiment, Kept& kept, Results& results);

double runs_work(const Experiment& experiment, const Results& results, bool tasks);
/// Every word in every condition, and in the usual one with the patch. `tasks`: the continuations
/// of Continuation too. `watch` adds hooks to the very first run; what they saw is kept and found again
/// by the other two.
struct RunsWatch {
  RunPlan::Watch watch;
  std::function<std::string()> save;
  std::function<void(const std::string&)> load;
};
void measure_runs(const Experiment& experiment, bool tasks, const RunsWatch& watch, Kept& kept,
                  Results& results);

}  // namespace sinkref
