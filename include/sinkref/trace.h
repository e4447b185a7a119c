#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "sinkref/forward.h"

namespace sinkref {

/// Writes chosen activations of one run to a safetensors file while they are computed, so that
/// memory stays bounded. Names and shapes as in hooks.h, batch first; shorter sequences are padded
/// with zeros at the end (tokens with -1) and "lengths" [b] is added where lengths differ.
/// fp32 activations are stored as F32, fp64 ones as F64.
template <class T>
class TraceWriter {
 public:
  /// `metadata`: strings for __metadata__. Nothing that differs between machines belongs there.
  /// `positions`: those that are kept of every activation, beside a tensor "positions" [p]; none: all.
  TraceWriter(const std::filesystem::path& path, bool overwrite, const ModelConfig& config,
              std::span<const Hook> hooks, const std::vector<std::vector<int>>& tokens,
              const std::map<std::string, std::string>& metadata,
              const std::vector<size_t>& positions = {});
  ~TraceWriter();

  /// Registers the chosen hooks. The writer must outlive the run.
  void attach(Hooks<T>& hooks);
  /// Makes the file appear. Without it nothing is left.
  void commit();
  size_t bytes() const { return bytes_; }

 private:
  struct Slot {
    Hook hook;
    size_t offset;  ///< of the tensor in the file
    size_t width;   ///< values of one position
  };
  void write(const Slot& slot, const Activation<T>& activation);
  void write_attention(const Slot& slot, const Activation<T>& activation);

  std::unique_ptr<class OutputFile> file_;
  std::vector<Slot> slots_;
  std::vector<size_t> slot_of_;  ///< of each position; SIZE_MAX: it is not kept
  size_t kept_ = 0, longest_ = 0, heads_ = 0, bytes_ = 0;
};

extern template class TraceWriter<float>;
extern template class TraceWriter<double>;

/// The bytes that such a trace will take.
size_t trace_bytes(const ModelConfig& config, std::span<const Hook> hooks,
                   const std::vector<std::vector<int>>& tokens, size_t value_bytes,
                   const std::vector<size_t>& positions = {});

/// What a run depends on, for __metadata__: program, arithmetic version, configuration, precision.
std::map<std::string, std::string> trace_metadata(const Model& model, size_t depth,
                                                  const std::string& precision, Softmax softmax);

/// Adds sentences to "notes", which is there only if there are any.
void add_notes(const std::vector<std::string>& notes, std::map<std::string, std::string>& metadata);

/// A trace or golden file, mapped into memory and read as double.
class TraceFile {
 public:
  static TraceFile open(const std::filesystem::path& path);  ///< throws InputError
  bool has(const std::string& name) const { return tensors_.count(name) != 0; }
  /// Where and how it lies in the file. Throws InputError if it is not there.
  const StoredTensor& tensor(const std::string& name) const;
  std::vector<std::string> names() const;
  std::vector<uint64_t> shape(const std::string& name) const;
  /// Values of an F32, F16, BF16, F64 or I64 tensor. Throws InputError if it is not there.
  std::vector<double> values(const std::string& name) const;
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
  std::shared_ptr<const class MappedFile> file_;
  std::map<std::string, StoredTensor> tensors_;
  std::map<std::string, std::string> metadata_;
};

/// Values [begin, begin + count) of a tensor of a trace as double, widened exactly (int64 beyond
/// 2^53 aside). Throws InputError for a dtype other than F32, F16, BF16, F64 and I64.
void read_values(const StoredTensor& tensor, size_t begin, size_t count, double* out);

}  // namespace sinkref
