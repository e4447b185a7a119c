#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "sinkref/hooks.h"
#include "sinkref/interventions.h"
#include "sinkref/trace.h"
#include "verify/golden.h"

namespace sinkref {

/// How far Hugging Face's fp32 runs are from the truth of one tensor.
struct GoldenFloor {
  Error pool;                 ///< the largest of several equally valid runs
  bool common_scale = false;  ///< rows divided by the whole tensor's rms, not each by its own
};

/// "floor" of a golden's metadata, by tensor. Throws InputError.
std::map<std::string, GoldenFloor> read_golden_floor(const TraceFile& file);

/// A golden file as tools/reference/hf_golden.py writes it, all of it checked before anything runs.
struct GoldenFile {
  struct Tensor {
    std::string name;
    Hook hook;
    bool norm = false;   ///< of each row of the hook, at every position
    size_t heads = 1;    ///< of scores and patterns; 1 elsewhere
    size_t rows = 0;     ///< positions of one head
    size_t width = 0;    ///< values of a row
    GoldenFloor floor;
    std::vector<double> truth;
  };

  /// Throws InputError unless it is a golden of this model.
  GoldenFile(const std::filesystem::path& path, const Model& model);

  std::vector<int> tokens;
  std::vector<Neurons> patch;
  std::vector<size_t> positions;  ///< those that tensors but norms hold, ascending
  std::vector<Tensor> tensors;    ///< in causal order
  double logits_max_error = 0;    ///< HF's largest, where there are logits
  std::vector<int> generated;     ///< greedy tokens, or empty
  std::vector<double> inv_freq;

 private:
  void read_positions(const TraceFile& file);
  void read_tensors(const TraceFile& file, const ModelConfig& config);
};

}  // namespace sinkref
