#include "sinkref/trace.h"

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>

#include "base/json_file.h"
#include "base/output_file.h"
#include "checkpoint/readers.h"
#include "model/safetensors_header.h"
#include "sinkref/error.h"

namespace sinkref {

using nlohmann::json;

namespace {

size_t longest(const std::vector<std::vector<int>>& tokens) {
  size_t n = 0;
  for (const auto& sequence : tokens) n = std::max(n, sequence.size());
  return n;
}

size_t product_of(const std::vector<size_t>& shape) {
  size_t n = 1;
  for (size_t extent : shape) n *= extent;
  return n;
}

std::vector<size_t> trace_shape(Hook hook, const ModelConfig& config, size_t batch, size_t kept, size_t length) {
  std::vector<size_t> shape = hook_shape(hook.point, config);
  if (is_attention(hook.point)) return {batch, shape[0], kept, length};
  shape.insert(shape.begin(), {batch, kept});
  return shape;
}

bool unequal(const std::vector<std::vector<int>>& tokens) {
  return std::any_of(tokens.begin(), tokens.end(),
                     [&](const auto& s) { return s.size() != tokens[0].size(); });
}

/// Everything in the file, in its order.
std::vector<TensorPlan> plan(const ModelConfig& config, std::span<const Hook> hooks,
                             const std::vector<std::vector<int>>& tokens, size_t value_bytes,
                             const std::vector<size_t>& positions) {
  const size_t batch = tokens.size(), length = longest(tokens);
  const size_t kept = positions.empty() ? length : positions.size();
  std::vector<TensorPlan> tensors = {{"tokens", "I64", {batch, length}, batch * length * 8}};
  if (unequal(tokens)) tensors.push_back({"lengths", "I64", {batch}, batch * 8});
  if (!positions.empty()) tensors.push_back({"positions", "I64", {kept}, kept * 8});
  for (Hook hook : hooks) {
    std::vector<size_t> shape = trace_shape(hook, config, batch, kept, length);
    const size_t bytes = product_of(shape) * value_bytes;
    tensors.push_back({hook_name(hook), value_bytes == 4 ? "F32" : "F64", std::move(shape), bytes});
  }
  return tensors;
}

}  // namespace

size_t trace_bytes(const ModelConfig& config, std::span<const Hook> hooks,
                   const std::vector<std::vector<int>>& tokens, size_t value_bytes,
                   const std::vector<size_t>& positions) {
  size_t bytes = 0;
  for (const TensorPlan& tensor : plan(config, hooks, tokens, value_bytes, positions)) bytes += tensor.bytes;
  return bytes;
}

template <class T>
TraceWriter<T>::TraceWriter(const std::filesystem::path& path, bool overwrite,
                            const ModelConfig& config, std::span<const Hook> hooks,
                            const std::vector<std::vector<int>>& tokens,
                            const std::map<std::string, std::string>& metadata,
                            const std::vector<size_t>& positions)
    : file_(std::make_unique<OutputFile>(path, overwrite)), longest_(longest(tokens)), heads_(config.heads) {
  const std::vector<TensorPlan> tensors = plan(config, hooks, tokens, sizeof(T), positions);
  kept_ = positions.empty() ? longest_ : positions.size();
  slot_of_.assign(longest_, SIZE_MAX);
  for (size_t i = 0; i < kept_; ++i) slot_of_.at(positions.empty() ? i : positions[i]) = i;
  const std::string header = safetensors_header(tensors, metadata);
  const size_t data = header.size();
  bytes_ = data;
  for (const TensorPlan& tensor : tensors) bytes_ += tensor.bytes;
  file_->resize(bytes_);
  file_->write_at(0, header.data(), header.size());

  std::vector<int64_t> ids(tokens.size() * longest_, -1);
  std::vector<int64_t> lengths;
  for (size_t i = 0; i < tokens.size(); ++i) {
    std::copy(tokens[i].begin(), tokens[i].end(), ids.begin() + static_cast<long>(i * longest_));
    lengths.push_back(static_cast<int64_t>(tokens[i].size()));
  }
  file_->write_at(data, ids.data(), ids.size() * 8);
  size_t at = data + tensors[0].bytes;
  if (tensors.size() > 1 && tensors[1].name == "lengths") {
    file_->write_at(at, lengths.data(), lengths.size() * 8);
    at += tensors[1].bytes;
  }
  if (!positions.empty()) {
    const std::vector<int64_t> kept(positions.begin(), positions.end());
    file_->write_at(at, kept.data(), kept.size() * 8);
    at += kept.size() * 8;
  }
  for (Hook hook : hooks) {
    slots_.push_back({hook, at, product_of(hook_shape(hook.point, config))});
    at += product_of(trace_shape(hook, config, tokens.size(), kept_, longest_)) * sizeof(T);
  }
}

template <class T>
TraceWriter<T>::~TraceWriter() = default;

template <class T>
void TraceWriter<T>::commit() {
  file_->commit();
}

template <class T>
void TraceWriter<T>::attach(Hooks<T>& hooks) {
  for (const Slot& slot : slots_)
    hooks.add(slot.hook, [this, &slot](const Activation<T>& activation) {
      is_attention(slot.hook.point) ? write_attention(slot, activation) : write(slot, activation);
    });
}

template <class T>
void TraceWriter<T>::write(const Slot& slot, const Activation<T>& activation) {
  for (size_t r = 0; r < activation.rows.size(); ++r) {
    const Row& row = activation.rows[r];
    const size_t place = slot_of_[row.position];
    if (place == SIZE_MAX) continue;
    const size_t index = row.sequence * kept_ + place;
    file_->write_at(slot.offset + index * slot.width * sizeof(T), activation.row(r),
                   slot.width * sizeof(T));
  }
}

template <class T>
void TraceWriter<T>::write_attention(const Slot& slot, const Activation<T>& activation) {
  // Keys that no step has reached yet are unseen.
  const T unseen =
      slot.hook.point == HookPoint::Pattern ? T(0) : -std::numeric_limits<T>::infinity();
  std::vector<T> whole(longest_, unseen);
  for (size_t r = 0; r < activation.rows.size(); ++r) {
    const Row& row = activation.rows[r];
    const size_t place = slot_of_[row.position];
    if (place == SIZE_MAX) continue;
    std::copy_n(activation.row(r), activation.width, whole.begin());
    const size_t index = (row.sequence * heads_ + activation.head) * kept_ + place;
    file_->write_at(slot.offset + index * longest_ * sizeof(T), whole.data(), longest_ * sizeof(T));
  }
}

template class TraceWriter<float>;
template class TraceWriter<double>;

std::map<std::string, std::string> trace_metadata(const Model& model, size_t depth,
                                                  const std::string& precision, Softmax softmax) {
  const ModelConfig& c = model.config();
  json config = {{"vocab_size", c.vocab_size},
                 {"hidden_size", c.hidden_size},
                 {"intermediate_size", c.intermediate_size},
                 {"num_hidden_layers", c.layers},
                 {"num_attention_heads", c.heads},
                 {"num_key_value_heads", c.kv_heads},
                 {"head_dim", c.head_dim},
                 {"rms_norm_eps", c.rms_norm_eps},
                 {"attention_bias", c.attention_bias},
                 {"mlp_bias", c.mlp_bias},
                 {"tie_word_embeddings", c.tied_output},
                 {"sliding_window", nullptr},
                 {"inv_freq", model.inv_freq()}};
  if (c.sliding_window) config["sliding_window"] = *c.sliding_window;
  std::map<std::string, std::string> metadata = {
      {"program", "sinkref " SINKREF_VERSION},
      {"arithmetic_version", std::to_string(arithmetic_version)},
      {"precision", precision},
      {"softmax", softmax == Softmax::one ? "one" : "standard"},
      {"blocks_run", std::to_string(depth)},
      {"weights_sha256", model.weights_sha256(depth)},
      {"config", config.dump()}};
  add_notes(c.notes, metadata);
  return metadata;
}

void add_notes(const std::vector<std::string>& notes, std::map<std::string, std::string>& metadata) {
  for (const std::string& note : notes) {
    std::string& all = metadata["notes"];
    all += (all.empty() ? "" : " ") + note;
  }
}

TraceFile TraceFile::open(const std::filesystem::path& path) {
  TraceFile trace;
  trace.path_ = path;
  trace.file_ = std::make_shared<const MappedFile>(path);
  trace.tensors_ = read_safetensors(*trace.file_);
  const std::span<const std::byte> bytes = trace.file_->bytes();
  const char* header = reinterpret_cast<const char*>(bytes.data()) + 8;
  const json parsed = parse_json({header, load<uint64_t>(bytes.data())}, path.string());
  if (const auto found = parsed.find("__metadata__"); found != parsed.end())
    for (const auto& [key, value] : found->items()) trace.metadata_[key] = value;
  return trace;
}

std::vector<std::string> TraceFile::names() const {
  std::vector<std::string> all;
  for (const auto& entry : tensors_) all.push_back(entry.first);
  return all;
}

const StoredTensor& TraceFile::tensor(const std::string& name) const {
  const auto found = tensors_.find(name);
  if (found == tensors_.end())
    refuse(path_.string(), "has no tensor " + quoted(name) + ", expected it",
           "trace it with --hooks");
  return found->second;
}

std::vector<uint64_t> TraceFile::shape(const std::string& name) const {
  return tensor(name).shape;
}

std::vector<double> TraceFile::values(const std::string& name) const {
  const StoredTensor& stored = tensor(name);
  size_t size = 1;
  for (uint64_t extent : stored.shape) size *= extent;
  std::vector<double> all(size);
  read_values(stored, 0, size, all.data());
  return all;
}

void read_values(const StoredTensor& tensor, size_t begin, size_t count, double* out) {
  const auto read = [&]<class T>(T) {
    for (size_t i = 0; i < count; ++i)
      out[i] = static_cast<double>(load<T>(tensor.data + (begin + i) * sizeof(T)));
  };
  if (tensor.unsupported_dtype == "F64") return read(double{});
  if (tensor.unsupported_dtype == "I64") return read(int64_t{});
  if (tensor.unsupported_dtype.empty() && tensor.dtype == DType::F32) return read(float{});
  if (tensor.unsupported_dtype.empty() &&
      (tensor.dtype == DType::F16 || tensor.dtype == DType::BF16)) {
    std::vector<float> widened(count);
    widen(tensor.dtype, tensor.data + 2 * begin, 0, count, widened.data());
    std::copy(widened.begin(), widened.end(), out);
    return;
  }
  refuse(tensor.file.string() + ": tensor " + quoted(tensor.stored_name),
         "has another dtype, expected F32, F16, BF16, F64 or I64", "convert it to one of these");
}

}  // namespace sinkref
