#include "checkpoint/fields.h"

#include <cmath>
#include <cstdint>

#include "sinkref/error.h"

namespace sinkref {

using nlohmann::json;

namespace {

// Strings may be of any bytes (GGUF), and dump() would throw on some of them.
std::string shown(const json& value) {
  if (value.is_string()) return quoted(value.get_ref<const std::string&>());
  if (value.is_array()) return "an array of " + std::to_string(value.size());
  if (value.is_object()) return "an object";
  return value.dump();
}

}  // namespace

void Field::fail(const std::string& expected, const std::string& remedy) const {
  refuse(file_.string(),
         (key_.empty() ? "the file" : key_) +
             (value_ == nullptr ? std::string(" is missing") : " is " + shown(*value_)) +
             ", expected " + expected,
         remedy);
}

const json& Field::value(const std::string& expected) const {
  if (!is_set()) fail(expected);
  return *value_;
}

bool Field::is_off() const {
  if (!is_set()) return true;
  if (value_->is_boolean()) return !value_->get<bool>();
  if (value_->is_number()) return *value_ == 0;
  if (value_->is_string()) return value_->get_ref<const std::string&>().empty();
  return value_->empty();
}

size_t Field::size() const {
  const std::string expected = "an integer from 1 to 2147483647";
  const json& found = value(expected);
  if (!found.is_number_integer() || found < 1 || found > INT32_MAX) fail(expected);
  return found.get<size_t>();
}

double Field::positive() const {
  const std::string expected = "a number > 0 within the range of fp32";
  const json& found = value(expected);
  if (!found.is_number()) fail(expected);
  const double number = found.get<double>();
  const bool in_range = number > 0 && number <= 3.4028234663852886e38;
  if (!in_range || static_cast<float>(number) == 0.0f) fail(expected);
  return number;
}

bool Field::flag() const {
  const json& found = value("true or false");
  if (!found.is_boolean()) fail("true or false");
  return found.get<bool>();
}

std::string Field::text() const {
  const json& found = value("a string");
  if (!found.is_string()) fail("a string");
  return found.get<std::string>();
}

std::optional<int> Field::id(const json& found, size_t vocab_size,
                             std::vector<std::string>& notes) const {
  if (!found.is_number_integer())
    refuse(file_.string(), key_ + " holds " + shown(found) + ", expected token ids", other_file);
  if (found < 0) return std::nullopt;  // as -1, for none
  if (found.get<uint64_t>() < uint64_t{vocab_size}) return found.get<int>();
  notes.push_back(key_ + " " + found.dump() + " lies beyond the vocabulary of " +
                  std::to_string(vocab_size) + " and is not used.");
  return std::nullopt;
}

std::vector<int> Field::ids(size_t vocab_size, std::vector<std::string>& notes) const {
  std::vector<int> all;
  if (!is_set()) return all;
  const json::array_t values = value_->is_array() ? value_->get<json::array_t>() : json::array_t{*value_};
  for (const json& value : values)
    if (const auto found = id(value, vocab_size, notes)) all.push_back(*found);
  return all;
}

Field Field::member(const std::string& name) const {
  const json& object = value("an object");
  if (!object.is_object()) fail("an object");
  const auto found = object.find(name);
  return {file_, key_.empty() ? name : key_ + "." + name,
          found == object.end() ? nullptr : &*found};
}

std::vector<std::string> Field::names() const {
  const json& object = value("an object");
  if (!object.is_object()) fail("an object");
  std::vector<std::string> all;
  for (const auto& [name, unused] : object.items()) all.push_back(name);
  return all;
}

std::vector<std::string> Field::texts() const {
  const json& array = value("an array of strings");
  if (!array.is_array()) fail("an array of strings");
  std::vector<std::string> all;
  for (const json& element : array) {
    if (!element.is_string()) fail("an array of strings");
    all.push_back(element.get<std::string>());
  }
  return all;
}

bool Field::operator==(const Field& other) const {
  return is_set() == other.is_set() && (!is_set() || *value_ == *other.value_);
}

}  // namespace sinkref
