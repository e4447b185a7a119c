#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "sinkref/tensor.h"

namespace sinkref {

/// One tensor of a checkpoint, in the file it lies in.
struct StoredTensor {
  DType dtype = DType::F32;
  /// "F64", "Q2_K", …: a dtype that sinkref knows but cannot use. Such a tensor may lie in the
  /// file, but asking for it throws. Empty for all others; `dtype` has no meaning otherwise.
  std::string unsupported_dtype;
  std::vector<uint64_t> shape;  ///< outermost first, as in Hugging Face (GGUF's order reversed)
  const std::byte* data = nullptr;
  uint64_t bytes = 0;
  std::filesystem::path file;       ///< for messages
  std::string stored_name;          ///< its name in that file (GGUF: "blk.0.attn_q.weight")
  size_t interleaved_head_dim = 0;  ///< as in StoredMatrix: weights and biases of GGUF's q and k
};

/// What a checkpoint says of itself besides its tensors: JSON, which this header does without.
struct CheckpointMetadata;

/// A read-only model on disk: a Hugging Face folder or a GGUF file, memory-mapped.
/// Tensor names are Hugging Face's ("model.layers.0.self_attn.q_proj.weight") in both cases.
/// Opening reads headers only; a tensor's pages are read when its values are used.
class Checkpoint {
 public:
  /// `path`: a folder with config.json (and model.safetensors, or shards with an index), or a
  /// .gguf file. Throws InputError for whatever is missing, malformed or inconsistent.
  /// A folder without weights opens (config and tokenizer can be used); asking for a tensor throws.
  static Checkpoint open(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return path_; }
  bool is_gguf() const { return is_gguf_; }
  /// config.json of a folder, or a GGUF's metadata (src/checkpoint/metadata.h).
  const CheckpointMetadata& metadata() const { return *metadata_; }
  /// The same with the vocabulary, read again from the file where it has been forgotten.
  std::shared_ptr<const CheckpointMetadata> whole_metadata() const;
  /// Frees the arrays of a GGUF's metadata that only a tokenizer needs: 10 MB for 50,000 tokens.
  void forget_vocabulary();
  /// The file a message about the configuration should name.
  std::filesystem::path config_file() const;

  const std::map<std::string, StoredTensor>& tensors() const { return tensors_; }
  bool has(const std::string& name) const { return tensors_.count(name) != 0; }
  /// The tensor `name` of exactly this shape, or InputError with name, file, expected and found.
  const StoredTensor& tensor(const std::string& name, const std::vector<uint64_t>& shape) const;
  /// The same as a matrix (one or two dimensions). A shape of one dimension gives one row, in the
  /// order of the file: use vector() for biases.
  StoredMatrix matrix(const std::string& name, const std::vector<uint64_t>& shape) const;
  /// A norm's weight or a bias of n elements as fp32, in Hugging Face's order.
  std::vector<float> vector(const std::string& name, uint64_t n) const;
  /// Gives a tensor other values of the same shape, in Hugging Face's order, which are kept in
  /// memory.
  void replace(const std::string& name, std::vector<float> values);

 private:
  std::filesystem::path path_;
  bool is_gguf_ = false;
  std::shared_ptr<const CheckpointMetadata> metadata_;
  std::map<std::string, StoredTensor> tensors_;
  std::vector<std::shared_ptr<const class MappedFile>> files_;
  std::vector<std::shared_ptr<const std::vector<float>>> replaced_;

  friend void read_safetensors_folder(Checkpoint&);
  friend void read_gguf(Checkpoint&);
};

}  // namespace sinkref
