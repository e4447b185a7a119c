#pragma once

#include <unistd.h>
#include <catch2/catch.hpp>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "sinkref/checkpoint.h"
#include "sinkref/error.h"
#include "temp_dir.h"

namespace sinkref {

/// A number as it lies in a file.
template <class T>
std::string raw(T value) {
  std::string bytes(sizeof value, '\0');
  std::memcpy(bytes.data(), &value, sizeof value);
  return bytes;
}

inline std::string raw_floats(const std::vector<float>& values) {
  return {reinterpret_cast<const char*>(values.data()), 4 * values.size()};
}

/// 1, 2, 3, … times a factor: every element is told from every other.
inline std::vector<float> counting(size_t n, float factor = 1.0f) {
  std::vector<float> values(n);
  for (size_t i = 0; i < n; ++i) values[i] = factor * static_cast<float>(i + 1);
  return values;
}

/// A .safetensors file from a header as text (so that it may be malformed) and its data.
inline std::string safetensors_file(const std::string& header, const std::string& data = "") {
  return raw<uint64_t>(header.size()) + header + data;
}

struct BuiltTensor {
  std::string name;
  std::string dtype;
  std::vector<uint64_t> shape;
  std::string bytes;
};

inline BuiltTensor f32(const std::string& name, const std::vector<uint64_t>& shape,
                       float factor = 1.0f) {
  uint64_t n = 1;
  for (const uint64_t size : shape) n *= size;
  return {name, "F32", shape, raw_floats(counting(n, factor))};
}

inline std::string safetensors_file(const std::vector<BuiltTensor>& tensors) {
  nlohmann::json header;
  header["__metadata__"]["format"] = "pt";
  std::string data;
  for (const BuiltTensor& tensor : tensors) {
    header[tensor.name] = {{"dtype", tensor.dtype},
                           {"shape", tensor.shape},
                           {"data_offsets", {data.size(), data.size() + tensor.bytes.size()}}};
    data += tensor.bytes;
  }
  return safetensors_file(header.dump(), data);
}

/// A GGUF file, part by part; every public field may be set to something that breaks the format.
class GgufBuilder {
 public:
  std::string magic = "GGUF";
  uint32_t version = 3;
  uint64_t extra_tensors = 0;  ///< more than there are
  uint64_t extra_keys = 0;
  uint64_t alignment = 32;  ///< used for the layout
  std::string tail;         ///< after the last tensor

  static std::string string(const std::string& text) { return raw<uint64_t>(text.size()) + text; }
  GgufBuilder& key(const std::string& name, uint32_t type, const std::string& value) {
    keys_ += string(name) + raw(type) + value;
    ++key_count_;
    return *this;
  }
  GgufBuilder& u32(const std::string& name, uint32_t value) { return key(name, 4, raw(value)); }
  GgufBuilder& f32(const std::string& name, float value) { return key(name, 6, raw(value)); }
  GgufBuilder& text(const std::string& name, const std::string& value) {
    return key(name, 8, string(value));
  }
  GgufBuilder& texts(const std::string& name, const std::vector<std::string>& values) {
    std::string array = raw<uint32_t>(8) + raw<uint64_t>(values.size());
    for (const std::string& value : values) array += string(value);
    return key(name, 9, array);
  }
  /// `shape` outermost first, as everywhere else.
  GgufBuilder& tensor(const std::string& name, uint32_t type, const std::vector<uint64_t>& shape,
                      const std::string& bytes) {
    return tensor_at(data_.size(), name, type, shape, bytes);
  }
  GgufBuilder& tensor_at(uint64_t offset, const std::string& name, uint32_t type,
                         const std::vector<uint64_t>& shape, const std::string& bytes) {
    infos_ += string(name) + raw<uint32_t>(static_cast<uint32_t>(shape.size()));
    for (auto size = shape.rbegin(); size != shape.rend(); ++size) infos_ += raw(*size);
    infos_ += raw(type) + raw(offset);
    data_ += bytes;
    data_.resize((data_.size() + alignment - 1) / alignment * alignment);
    ++tensor_count_;
    return *this;
  }

  /// The bytes before the data section.
  std::string header() const {
    std::string file = magic + raw(version) + raw<uint64_t>(tensor_count_ + extra_tensors) +
                       raw<uint64_t>(key_count_ + extra_keys) + keys_ + infos_;
    file.resize((file.size() + alignment - 1) / alignment * alignment);
    return file;
  }
  std::string build() const { return header() + data_ + tail; }

 private:
  std::string keys_, infos_, data_;
  uint64_t key_count_ = 0, tensor_count_ = 0;
};

/// The metadata of the smallest model: 2 heads of 4, one key/value head, one layer.
inline GgufBuilder tiny_gguf() {
  GgufBuilder gguf;
  gguf.text("general.architecture", "llama")
      .u32("llama.block_count", 1)
      .u32("llama.context_length", 64)
      .u32("llama.embedding_length", 8)
      .u32("llama.feed_forward_length", 12)
      .u32("llama.attention.head_count", 2)
      .u32("llama.attention.head_count_kv", 1)
      .f32("llama.attention.layer_norm_rms_epsilon", 1e-5f)
      .f32("llama.rope.freq_base", 10000.0f)
      .u32("llama.vocab_size", 16);
  return gguf;
}

/// config.json of the same model.
inline nlohmann::json tiny_config() {
  return {{"model_type", "llama"},    {"vocab_size", 16},
          {"hidden_size", 8},         {"intermediate_size", 12},
          {"num_hidden_layers", 1},   {"num_attention_heads", 2},
          {"num_key_value_heads", 1}, {"max_position_embeddings", 64},
          {"rms_norm_eps", 1e-5}};
}

/// A message is one line: what was found, what was expected, and behind a semicolon the remedy.
inline void check_message(const std::string& message) {
  INFO(message);
  CHECK(message.find('\n') == std::string::npos);
  CHECK(message.size() < 700);
  const size_t expected = message.find("expected "), remedy = message.rfind("; ");
  CHECK(expected != std::string::npos);
  CHECK((remedy != std::string::npos && remedy > expected && remedy + 2 < message.size()));
}

/// The message of the InputError that `action` must throw, which holds all of `parts`.
inline std::string input_error(const std::function<void()>& action,
                               const std::vector<std::string>& parts) {
  std::string message;
  try {
    action();
    FAIL_CHECK("no InputError was thrown");
  } catch (const InputError& error) {
    message = error.what();
  }
  check_message(message);
  INFO(message);
  for (const std::string& part : parts) CHECK_THAT(message, Catch::Matchers::Contains(part));
  return message;
}

/// Opens a model and reads every value of every tensor that it offers.
inline size_t touch(const std::filesystem::path& path) {
  const Checkpoint checkpoint = Checkpoint::open(path);
  size_t values = 0;
  for (const auto& [name, tensor] : checkpoint.tensors()) {
    const bool usable = tensor.unsupported_dtype.empty() && tensor.bytes != 0;
    if (!usable || tensor.shape.empty() || tensor.shape.size() > 2) continue;
    if (tensor.shape.size() == 1) {
      values += checkpoint.vector(name, tensor.shape[0]).size();
      continue;
    }
    const StoredMatrix matrix = checkpoint.matrix(name, tensor.shape);
    for (size_t row = 0; row < matrix.rows; ++row) values += widen_row(matrix, row).size();
  }
  return values;
}

}  // namespace sinkref
