// The key/value pairs of a GGUF header, as JSON values.
#include "checkpoint/gguf_metadata.h"

namespace sinkref {

using nlohmann::json;

namespace {

// Far above every real file (vocabularies have 256k tokens), low enough to bound memory.
constexpr uint64_t longest_key = 65535;
constexpr uint64_t longest_string = 256u << 20;
constexpr uint64_t longest_array = 16u << 20;

enum ValueType : uint32_t {
  U8,
  I8,
  U16,
  I16,
  U32,
  I32,
  F32,
  Bool,
  String,
  Array,
  U64,
  I64,
  F64,
  value_types
};

// The least a value takes in the file: bounds an array's length by the bytes that are left.
uint64_t least_bytes(uint32_t type) {
  constexpr uint64_t bytes[value_types] = {1, 1, 2, 2, 4, 4, 4, 1, 8, 12, 8, 8, 8};
  return bytes[type];
}

bool read_bool(GgufReader& in, const std::string& what) {
  const uint8_t value = in.number<uint8_t>(what);
  if (value > 1) in.fail(what + " is the boolean " + std::to_string(value) + ", expected 0 or 1");
  return value == 1;
}

json read_scalar(GgufReader& in, uint32_t type, const std::string& what) {
  switch (type) {
    case U8:
      return in.number<uint8_t>(what);
    case I8:
      return in.number<int8_t>(what);
    case U16:
      return in.number<uint16_t>(what);
    case I16:
      return in.number<int16_t>(what);
    case U32:
      return in.number<uint32_t>(what);
    case I32:
      return in.number<int32_t>(what);
    case F32:
      return in.number<float>(what);
    case Bool:
      return read_bool(in, what);
    case String:
      return in.string(what, longest_string);
    case U64:
      return in.number<uint64_t>(what);
    case I64:
      return in.number<int64_t>(what);
    case F64:
      return in.number<double>(what);
    default:
      in.fail(what + " has value type " + std::to_string(type) + ", expected 0 to 12");
  }
}

json read_array(GgufReader& in, const std::string& what) {
  const uint32_t type = in.number<uint32_t>(what);
  if (type >= value_types || type == Array)
    in.fail(what + " is an array of value type " + std::to_string(type) +
            ", expected numbers, booleans or strings");
  const uint64_t count = in.number<uint64_t>(what);
  if (count > longest_array || count > in.left() / least_bytes(type))
    in.fail(what + " is an array of " + std::to_string(count) + " elements, expected at most " +
            std::to_string(std::min(longest_array, in.left() / least_bytes(type))));
  json::array_t values;
  values.reserve(count);
  for (uint64_t i = 0; i < count; ++i) values.push_back(read_scalar(in, type, what));
  return values;
}

}  // namespace

void read_metadata(GgufReader& in, uint64_t count, std::map<std::string, json>& metadata) {
  for (uint64_t i = 0; i < count; ++i) {
    const std::string key = in.string("key " + std::to_string(i), longest_key);
    if (key.empty()) in.fail("key " + std::to_string(i) + " is empty, expected a name");
    const std::string what = "metadata " + quoted(key);
    if (metadata.count(key)) in.fail(what + " stands twice in the file, expected once");
    const uint32_t type = in.number<uint32_t>(what);
    metadata[key] = type == Array ? read_array(in, what) : read_scalar(in, type, what);
  }
}

}  // namespace sinkref
