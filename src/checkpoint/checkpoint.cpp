#include "sinkref/checkpoint.h"

#include <malloc.h>

#include <algorithm>
#include <fstream>
#include <set>
#include <string_view>

#include "base/json_file.h"
#include "checkpoint/metadata.h"
#include "checkpoint/readers.h"
#include "sinkref/error.h"

namespace sinkref {

namespace fs = std::filesystem;

namespace {

constexpr const char* a_model =
    "a Hugging Face folder (config.json, model.safetensors) or a .gguf file";
constexpr const char* one_model = "take configuration and weights from one model";

bool is_gguf_file(const fs::path& path) {
  if (path.extension() == ".gguf") return true;
  // The files a Hugging Face cache links to have no extension.
  std::ifstream in(path, std::ios::binary);
  char magic[4] = {};
  in.read(magic, sizeof magic);
  return in && std::string_view(magic, sizeof magic) == "GGUF";
}

std::string first_gguf_in(const fs::path& folder) {
  std::string first;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    const std::string name = entry.path().filename().string();
    if (entry.path().extension() == ".gguf" && (first.empty() || name < first)) first = name;
  }
  return first;
}

// transformers takes the adapter's base model instead of weights that lie beside it.
void refuse_adapter(const fs::path& folder) {
  const fs::path file = folder / "adapter_config.json";
  if (!is_present(file)) return;
  const nlohmann::json adapter = read_json_file(file, 16u << 20);
  const auto text = [&](const char* key) {
    const bool has = adapter.is_object() && adapter.contains(key) && adapter[key].is_string();
    return has ? " " + quoted(adapter[key].get<std::string>()) : "";
  };
  refuse(folder.string(),
         "holds an adapter" + text("peft_type") + " (adapter_config.json) of the base model" +
             text("base_model_name_or_path") + ", expected a whole model",
         "merge the two with peft's merge_and_unload and save_pretrained the result elsewhere");
}

// Python writes and reads Infinity and NaN, which are no JSON. As texts they can be named, and
// refused where a number is needed.
std::string with_quoted_infinities(const std::string& text) {
  std::string out;
  bool in_string = false;
  for (size_t at = 0; at < text.size();) {
    size_t taken = 1;
    bool is_word = false;
    if (in_string && text[at] == '\\') {
      taken = std::min<size_t>(2, text.size() - at);
    } else if (text[at] == '"') {
      in_string = !in_string;
    } else if (!in_string) {
      for (const std::string_view word : {"-Infinity", "Infinity", "NaN"})
        if (!is_word && std::string_view(text).substr(at).starts_with(word)) {
          taken = word.size();
          is_word = true;
        }
    }
    const std::string part = text.substr(at, taken);
    out += is_word ? "\"" + part + "\"" : part;
    at += taken;
  }
  return out;
}

nlohmann::json read_config_json(const fs::path& folder) {
  const fs::path file = folder / "config.json";
  refuse_adapter(folder);
  if (!is_present(file)) {
    const std::string gguf = first_gguf_in(folder);
    if (gguf.empty() && is_present(folder / "params.json"))
      refuse(folder.string(), "is a model in Meta's own form (params.json), expected " + std::string(a_model),
             "take the same model's Hugging Face form from its page");
    refuse(folder.string(), "holds no config.json, expected " + std::string(a_model),
           gguf.empty() ? "check the path" : "give the file it holds, " + quoted(gguf));
  }
  nlohmann::json config =
      parse_json(with_quoted_infinities(read_text_file(file, 16u << 20)), file.string());
  if (!config.is_object())
    refuse(file.string(),
           std::string("holds JSON of type ") + config.type_name() + ", expected an object");
  return config;
}

[[noreturn]] void throw_no_weights(const fs::path& folder, const std::string& name) {
  const std::string problem =
      "holds no weights, expected model.safetensors or "
      "model.safetensors.index.json with tensor " +
      quoted(name);
  for (const char* old : {"pytorch_model.bin", "pytorch_model.bin.index.json"})
    if (is_present(folder / old))
      refuse(folder.string(), problem,
             std::string(old) +
                 " is not read: convert it with transformers' save_pretrained, "
                 "which writes safetensors");
  refuse(folder.string(), problem, "download them from the model's page");
}

// Where GGUF interleaves a head's halves, element r of Hugging Face's order lies elsewhere.
std::vector<float> in_hugging_face_order(const std::vector<float>& stored, size_t head_dim) {
  std::vector<float> out(stored.size());
  for (size_t r = 0; r < out.size(); ++r) out[r] = stored[interleaved_row(r, head_dim)];
  return out;
}

}  // namespace

bool is_present(const fs::path& path) {
  std::error_code error;
  return fs::exists(fs::symlink_status(path, error));
}

void return_freed_memory() {
#ifdef __GLIBC__
  ::malloc_trim(0);
#endif
}

std::string shape_text(std::span<const uint64_t> shape) {
  constexpr size_t most = 8;  // a malformed file may have a thousand dimensions
  std::string text = "[";
  for (size_t i = 0; i < shape.size() && i < most; ++i)
    text += (i == 0 ? "" : ", ") + std::to_string(shape[i]);
  return text + (shape.size() > most ? ", …]" : "]");
}

Checkpoint Checkpoint::open(const fs::path& path) {
  Checkpoint checkpoint;
  checkpoint.path_ = path;
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (!fs::exists(status))
    refuse(path.string(), "no such file or folder, expected " + std::string(a_model),
           "check the path");
  if (fs::is_directory(status)) {
    checkpoint.metadata_ = std::make_shared<CheckpointMetadata>(CheckpointMetadata{read_config_json(path), {}});
    read_safetensors_folder(checkpoint);
  } else if (fs::is_regular_file(status) && is_gguf_file(path)) {
    checkpoint.is_gguf_ = true;
    read_gguf(checkpoint);
  } else {
    refuse(path.string(), "not a model, expected " + std::string(a_model), "check the path");
  }
  return checkpoint;
}

void Checkpoint::forget_vocabulary() {
  static const std::set<std::string> vocabulary = {"tokenizer.ggml.tokens", "tokenizer.ggml.merges",
                                                   "tokenizer.ggml.scores", "tokenizer.ggml.token_type"};
  auto rest = std::make_shared<CheckpointMetadata>(CheckpointMetadata{metadata_->config, {}});
  for (const auto& [key, value] : metadata_->gguf)
    if (!vocabulary.contains(key)) rest->gguf.emplace(key, value);
  const bool freed = rest->gguf.size() < metadata_->gguf.size();
  metadata_ = std::move(rest);
  if (freed) return_freed_memory();  // verify makes many models of one checkpoint
}

fs::path Checkpoint::config_file() const {
  return is_gguf_ ? path_ : path_ / "config.json";
}

const StoredTensor& Checkpoint::tensor(const std::string& name,
                                       const std::vector<uint64_t>& shape) const {
  if (tensors_.empty() && !is_gguf_) throw_no_weights(path_, name);
  const auto found = tensors_.find(name);
  if (found == tensors_.end())
    refuse(path_.string(),
           "holds no tensor " + quoted(name) + ", expected one of shape " + shape_text(shape),
           one_model);
  const StoredTensor& tensor = found->second;
  const std::string where = tensor.file.string() + ": tensor " + quoted(tensor.stored_name);
  if (tensor.shape != shape)
    refuse(where, "has shape " + shape_text(tensor.shape) + ", expected " + shape_text(shape),
           one_model);
  if (!tensor.unsupported_dtype.empty())
    refuse(where,
           "has dtype " + tensor.unsupported_dtype +
               ", expected F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K or Q6_K",
           "convert the model to one of these");
  return tensor;
}

StoredMatrix Checkpoint::matrix(const std::string& name, const std::vector<uint64_t>& shape) const {
  if (shape.empty() || shape.size() > 2)
    throw std::logic_error("a matrix has one or two dimensions, not " + shape_text(shape));
  const StoredTensor& stored = tensor(name, shape);
  StoredMatrix matrix;
  matrix.data = stored.data;
  matrix.dtype = stored.dtype;
  matrix.rows = shape.size() == 2 ? shape[0] : 1;
  matrix.cols = shape.back();
  if (shape.size() == 2) matrix.interleaved_head_dim = stored.interleaved_head_dim;
  return matrix;
}

void Checkpoint::replace(const std::string& name, std::vector<float> values) {
  StoredTensor& stored = tensors_.at(name);
  uint64_t elements = 1;
  for (uint64_t extent : stored.shape) elements *= extent;
  if (values.size() != elements)
    throw std::logic_error(name + ": " + std::to_string(values.size()) + " values for shape " +
                           shape_text(stored.shape));
  replaced_.push_back(std::make_shared<const std::vector<float>>(std::move(values)));
  stored.dtype = DType::F32;
  stored.unsupported_dtype.clear();
  stored.interleaved_head_dim = 0;
  stored.data = reinterpret_cast<const std::byte*>(replaced_.back()->data());
  stored.bytes = elements * sizeof(float);
}

std::vector<float> Checkpoint::vector(const std::string& name, uint64_t n) const {
  const std::vector<float> values = widen_row(matrix(name, {n}), 0);
  const size_t head_dim = tensors_.at(name).interleaved_head_dim;
  return head_dim == 0 ? values : in_hugging_face_order(values, head_dim);
}

}  // namespace sinkref
