#include "sinkref/model.h"

#include <algorithm>
#include <cmath>
#include <exception>
#include <functional>
#include <span>

#include "base/sha256.h"
#include "base/threads.h"
#include "model/tensors.h"
#include "sinkref/error.h"

namespace sinkref {

namespace {

std::string shape_text(const std::vector<uint64_t>& shape) {
  std::string text;
  for (uint64_t extent : shape) text += (text.empty() ? "" : ",") + std::to_string(extent);
  return text;
}

/// Calls `each` with every row of the tensor, as fp32; a vector is one row.
void for_each_row(const Checkpoint& checkpoint, const Model::Needed& tensor,
                  const std::function<void(size_t, std::span<const float>)>& each) {
  if (tensor.shape.size() == 1) {
    each(0, checkpoint.vector(tensor.name, tensor.shape[0]));
    return;
  }
  const StoredMatrix matrix = checkpoint.matrix(tensor.name, tensor.shape);
  std::vector<float> row(matrix.cols);
  for (size_t r = 0; r < matrix.rows; ++r) {
    widen(matrix.dtype, matrix.row(r), 0, matrix.cols, row.data());
    each(r, row);
  }
}

/// Whether a file may hold NaN is not for its format to say, but nothing true follows from one.
void require_finite(const Checkpoint& checkpoint, const Model::Needed& tensor, size_t r,
                    std::span<const float> row) {
  for (size_t i = 0; i < row.size(); ++i) {
    if (std::isfinite(row[i])) continue;
    const StoredTensor& stored = checkpoint.tensor(tensor.name, tensor.shape);
    refuse(stored.file.string() + ": tensor " + quoted(stored.stored_name),
           std::string("holds ") + (std::isnan(row[i]) ? "NaN" : "an infinity") + " at row " +
               std::to_string(r) + ", column " + std::to_string(i) + ", expected finite weights",
           "get the file again");
  }
}

std::string values_sha256(const Checkpoint& checkpoint, const Model::Needed& tensor) {
  Sha256 hash;
  for_each_row(checkpoint, tensor, [&](size_t r, std::span<const float> row) {
    require_finite(checkpoint, tensor, r, row);
    hash.update(row.data(), row.size() * sizeof(float));
  });
  return hash.finish();
}

constexpr const char* embedding_name = "model.embed_tokens.weight";

}  // namespace

Model Model::open(const std::filesystem::path& path) {
  return Model(Checkpoint::open(path));
}

Model::Model(Checkpoint checkpoint) : Model(checkpoint, read_config(checkpoint)) {}

Model::Model(Checkpoint checkpoint, ModelConfig config, Edit edit)
    : checkpoint_(std::move(checkpoint)), config_(std::move(config)), edit_(std::move(edit)) {
  const std::vector<uint64_t> shape = {config_.vocab_size, config_.hidden_size};
  embedding_ = checkpoint_.matrix(embedding_name, shape);
  for (const Needed& needed : needed_tensors()) checkpoint_.tensor(needed.name, needed.shape);
  lm_head_ = config_.tied_output ? embedding_ : checkpoint_.matrix("lm_head.weight", shape);
  inv_freq_ = rope_inv_freq(config_);
  layers_.resize(config_.layers);
  checkpoint_.forget_vocabulary();
}

std::vector<float> Model::final_norm() const {
  return checkpoint_.vector("model.norm.weight", config_.hidden_size);
}

std::vector<Model::Needed> Model::needed_tensors() const {
  return sinkref::needed_tensors(config_, checkpoint_);
}

const LayerWeights& Model::layer(size_t index) const {
  std::unique_ptr<LayerWeights>& cached = layers_.at(index);
  if (cached) return *cached;
  auto weights = std::make_unique<LayerWeights>();
  for (const TensorInfo& tensor : tensor_table()) {
    if (!tensor.in_block || !tensor.is_there(config_)) continue;
    const std::vector<uint64_t> shape = tensor.shape(config_);
    const std::string name = tensor_name(tensor, index);
    if (tensor.matrix != nullptr) (*weights).*tensor.matrix = checkpoint_.matrix(name, shape);
    else (*weights).*tensor.vector = checkpoint_.vector(name, shape[0]);
    if (has_bias(tensor, config_, checkpoint_))
      (*weights).*tensor.vector = checkpoint_.vector(tensor_name(tensor, index, "bias"), shape[0]);
  }
  if (edit_) edit_(index, *weights);
  cached = std::move(weights);
  return *cached;
}

std::vector<Model::Needed> Model::tensors_of_run(size_t depth) const {
  std::vector<Needed> all = needed_tensors();
  if (depth < config_.layers)
    std::erase_if(all, [&](const Needed& needed) {
      return needed.layer >= depth && needed.name != embedding_name;
    });
  return all;
}

void Model::require_finite_weights(size_t depth) const {
  for (const Needed& tensor : tensors_of_run(depth))
    for_each_row(checkpoint_, tensor, [&](size_t r, std::span<const float> row) {
      require_finite(checkpoint_, tensor, r, row);
    });
}

const std::string& Model::weights_sha256(size_t depth) const {
  std::string& known = hashes_[depth];
  if (!known.empty()) return known;
  std::vector<Needed> tensors = tensors_of_run(depth);
  std::sort(tensors.begin(), tensors.end(),
            [](const Needed& a, const Needed& b) { return a.name < b.name; });
  std::vector<std::string> digests(tensors.size());
  parallel_for(tensors.size(), [&](size_t i) { digests[i] = values_sha256(checkpoint_, tensors[i]); });
  Sha256 hash;
  for (size_t i = 0; i < tensors.size(); ++i) {
    const std::string line =
        tensors[i].name + "|" + shape_text(tensors[i].shape) + "|" + digests[i] + "\n";
    hash.update(line.data(), line.size());
  }
  return known = hash.finish();
}

}  // namespace sinkref
