#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

namespace sinkref {

/// One setting of config.json or of GGUF metadata, read with all its checks. Every function that
/// returns a value throws InputError as fail() does if it cannot.
class Field {
 public:
  static constexpr const char* other_file = "correct the file or take it from the model's own page";

  /// `value` is null if the key is absent.
  Field(const std::filesystem::path& file, std::string key, const nlohmann::json* value)
      : file_(file), key_(std::move(key)), value_(value) {}

  const std::string& key() const { return key_; }
  /// Absent and null mean the same for most keys.
  bool is_set() const { return value_ != nullptr && !value_->is_null(); }
  bool is_absent() const { return value_ == nullptr; }
  /// null, false, 0, "", [] or {}.
  bool is_off() const;
  bool is_object() const { return is_set() && value_->is_object(); }

  size_t size() const;      ///< an integer from 1 to 2^31-1
  double positive() const;  ///< a finite number > 0, in fp32 too
  bool flag() const;
  std::string text() const;
  /// One token id or a list of them; none if null. Ids beyond the vocabulary are left out and noted.
  std::vector<int> ids(size_t vocab_size, std::vector<std::string>& notes) const;
  Field member(const std::string& name) const;    ///< of an object, or absent
  std::vector<std::string> names() const;         ///< of an object's members
  std::vector<std::string> texts() const;         ///< an array of strings

  size_t size_or(size_t other) const { return is_set() ? size() : other; }
  double positive_or(double other) const { return is_set() ? positive() : other; }
  bool flag_or(bool other) const { return is_set() ? flag() : other; }

  /// Throws "FILE: KEY is FOUND, expected EXPECTED; REMEDY".
  [[noreturn]] void fail(const std::string& expected, const std::string& remedy = other_file) const;
  bool operator==(const Field& other) const;

 private:
  const nlohmann::json& value(const std::string& expected) const;
  std::optional<int> id(const nlohmann::json& value, size_t vocab_size,
                        std::vector<std::string>& notes) const;

  std::filesystem::path file_;
  std::string key_;
  const nlohmann::json* value_;
};

}  // namespace sinkref
