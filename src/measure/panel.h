#pragma once

#include <nlohmann/json_fwd.hpp>
#include <vector>

#include "measure/experiment.h"
#include "measure/kept.h"
#include "measure/page_context.h"
#include "measure/tensors.h"
#include "page/page.h"

// A panel is one question: what is measured for it, its part of report.json, of the page, of the
// terminal's lines and of report.safetensors. Its folder holds them all, its row in panels.cpp
// names them; a part that it does not have is null.

namespace sinkref {

/// How results of some types outlive the process (Kept). A result that is not there stays so.
struct KeptResults {
  std::string (*save)(const Results&) = nullptr;
  void (*load)(archive::Reader&, Results&) = nullptr;
};

template <class... T>
constexpr KeptResults kept_results() {
  return {[](const Results& results) {
            std::string bytes;
            const auto save = [&](const auto* result) {
              archive::write(bytes, result != nullptr);
              if (result != nullptr) archive::write(bytes, *result);
            };
            (save(results.find<T>()), ...);
            return bytes;
          },
          [](archive::Reader& in, Results& results) {
            const auto load = [&](auto result) {
              bool there = false;
              in.read(there);
              if (!there) return;
              in.read(result);
              results.put(std::move(result));
            };
            (load(T{}), ...);
          }};
}

struct Panel {
  const char* key;      ///< its name, and its key in report.json
  const char* section;  ///< where the page shows it; several panels may share a section
  /// What there must be for a result ("a sink"); empty if there always is one. Without a result the
  /// panel has no key, and its section is left out if no other panel fills it.
  const char* needs = "";

  enum class Runs { none, norms, tasks } runs = Runs::none;  ///< what it reads of Results::runs
  /// Adds hooks to the first run of the first word.
  void (*watch)(const Experiment&, Results&, Hooks<float>&) = nullptr;
  KeptResults watched = {};  ///< what these hooks fill
  /// After the sinks and the runs.
  void (*measure)(const Experiment&, Results&) = nullptr;
  KeptResults measured = {};  ///< what it puts; none if that costs nothing
  /// What measure() is worth (Progress), from the sinks and the runs.
  double (*work)(const Experiment&, const Results&) = nullptr;

  /// `with_curves`: all of it, as report.json; otherwise what fits a screen.
  void (*json)(const Experiment&, const Results&, bool with_curves, nlohmann::ordered_json&) = nullptr;
  void (*page)(const PageContext&, Page&) = nullptr;
  void (*text)(const Experiment&, const Results&) = nullptr;
  bool long_text = false;  ///< more lines than `report` should print
  void (*tensors)(const Results&, std::vector<NamedTensor>&) = nullptr;
};

}  // namespace sinkref
