#include <bit>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <fstream>
#include <iterator>
#include <set>

#include "arithmetic/dtypes.h"

using namespace sinkref;

namespace {

// Catch would take minutes to print two long vectors that differ.
size_t differing(const std::vector<float>& values, const std::vector<uint32_t>& expected) {
  REQUIRE(values.size() == expected.size());
  size_t count = 0;
  for (size_t i = 0; i < values.size(); ++i)
    count += std::bit_cast<uint32_t>(values[i]) != expected[i];
  return count;
}

struct Fixture {
  std::vector<char> blocks;
  std::vector<uint32_t> expected;
};

// The format is described in tools/reference/make_dequantize_fixture.py.
Fixture read_fixture(const DTypeInfo& type) {
  const std::string path =
      std::string(SINKREF_SOURCE_DIR) + "/reference_outputs/dequantize/" + type.name + ".bin";
  std::ifstream in(path, std::ios::binary);
  INFO(path);
  uint32_t count = 0;
  REQUIRE(in.read(reinterpret_cast<char*>(&count), 4));
  Fixture fixture;
  fixture.blocks.resize(count * type.bytes);
  fixture.expected.resize(count * type.block);
  REQUIRE(in.read(fixture.blocks.data(), static_cast<std::streamsize>(fixture.blocks.size())));
  REQUIRE(in.read(reinterpret_cast<char*>(fixture.expected.data()),
                  static_cast<std::streamsize>(4 * fixture.expected.size())));
  REQUIRE(in.peek() == std::char_traits<char>::eof());
  return fixture;
}

// The value that a format with these field widths gives to `pattern`, from its definition.
double value_of(uint16_t pattern, int exponent_bits, int mantissa_bits) {
  const int bias = (1 << (exponent_bits - 1)) - 1;
  const int exponent = pattern >> mantissa_bits & ((1 << exponent_bits) - 1);
  const int mantissa = pattern & ((1 << mantissa_bits) - 1);
  const double sign = pattern >> 15 ? -1.0 : 1.0;
  if (exponent == (1 << exponent_bits) - 1) return mantissa ? NAN : sign * INFINITY;
  if (exponent == 0) return sign * std::ldexp(mantissa, 1 - bias - mantissa_bits);
  return sign * std::ldexp((1 << mantissa_bits) + mantissa, exponent - bias - mantissa_bits);
}

void check_all_patterns(DType dtype, int exponent_bits, int mantissa_bits) {
  std::vector<uint16_t> patterns(65536);
  for (size_t i = 0; i < patterns.size(); ++i) patterns[i] = static_cast<uint16_t>(i);
  std::vector<float> values(patterns.size());
  widen(dtype, reinterpret_cast<const std::byte*>(patterns.data()), 0, values.size(),
        values.data());
  size_t wrong = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    const double expected = value_of(patterns[i], exponent_bits, mantissa_bits);
    if (std::isnan(expected))
      wrong += !std::isnan(values[i]);
    else
      wrong += std::bit_cast<uint32_t>(values[i]) !=
               std::bit_cast<uint32_t>(static_cast<float>(expected));
  }
  CHECK(wrong == 0);
}

/// The rows that weights can be of, with blocks or without.
std::vector<const DTypeRow*> usable_rows(bool blocks) {
  std::vector<const DTypeRow*> rows;
  for (const DTypeRow& row : dtype_table())
    if (row.dtype && (row.info.block > 1) == blocks) rows.push_back(&row);
  return rows;
}

}  // namespace

TEST_CASE("dequantize: every block type has the bits of the gguf package") {
  for (const DTypeRow* row : usable_rows(true)) {
    const DType dtype = *row->dtype;
    const DTypeInfo& type = row->info;
    INFO(type.name);
    const Fixture fixture = read_fixture(type);
    std::vector<float> values(fixture.expected.size());
    widen(dtype, reinterpret_cast<const std::byte*>(fixture.blocks.data()), 0, values.size(),
          values.data());
    CHECK(differing(values, fixture.expected) == 0);
  }
}

TEST_CASE("dequantize: a part of a row has the bits of the whole row, at any address") {
  for (const DTypeRow* row : usable_rows(true)) {
    const DType dtype = *row->dtype;
    const DTypeInfo& type = row->info;
    INFO(type.name);
    const Fixture fixture = read_fixture(type);
    std::vector<char> shifted(fixture.blocks.size() + 1);
    std::memcpy(shifted.data() + 1, fixture.blocks.data(), fixture.blocks.size());
    const size_t cols = 2 * 256 + (type.block == 32 ? 32 : 256);
    for (const auto& [begin, end] : {std::pair<size_t, size_t>{0, 256}, {256, 512}, {256, cols}}) {
      std::vector<float> values(end - begin + 1, 12345.0f);
      widen(dtype, reinterpret_cast<const std::byte*>(shifted.data() + 1), begin, end,
            values.data());
      CHECK(values.back() == 12345.0f);
      values.pop_back();
      const std::vector<uint32_t> expected(fixture.expected.begin() + begin,
                                           fixture.expected.begin() + end);
      CHECK(differing(values, expected) == 0);
    }
  }
}

TEST_CASE("dequantize: every fp16 pattern has its exact value") {
  check_all_patterns(DType::F16, 5, 10);
}

TEST_CASE("dequantize: every bf16 pattern has its exact value") {
  check_all_patterns(DType::BF16, 8, 7);
}

TEST_CASE("dequantize: an fp32 row is copied bit for bit, NaN payloads included") {
  const std::vector<uint32_t> stored = {0x7fc12345, 0x80000000, 0x00000001, 0x3f800000};
  std::vector<float> values(2);
  widen(DType::F32, reinterpret_cast<const std::byte*>(stored.data()), 0, 2, values.data());
  CHECK(differing(values, {0x7fc12345, 0x80000000}) == 0);
}

// A row that no test widens would be a promise that nobody checks.
TEST_CASE("dequantize: every dtype is one of blocks, or one of the three whose values are tested") {
  std::set<std::string> plain;
  for (const DTypeRow* row : usable_rows(false)) plain.insert(row->info.name);
  CHECK(plain == std::set<std::string>{"F32", "F16", "BF16"});
}

TEST_CASE("dtypes: names and numbers are found, and none stands twice") {
  std::set<std::string> names;
  std::set<int> numbers;
  for (const DTypeRow& row : dtype_table()) {
    INFO(row.info.name);
    CHECK(names.insert(row.info.name).second);
    CHECK(dtype_named(row.info.name) == &row);
    CHECK((row.in_safetensors || row.ggml != no_ggml));
    CHECK(row.dtype.has_value() == (row.widen != nullptr));
    if (row.dtype) CHECK(&dtype_info(*row.dtype) == &row.info);
    if (row.ggml == no_ggml) continue;
    CHECK(numbers.insert(row.ggml).second);
    CHECK(dtype_numbered(static_cast<uint32_t>(row.ggml)) == &row);
  }
  CHECK(dtype_named("F33") == nullptr);
  CHECK(dtype_numbered(4) == nullptr);  // Q4_2, which is no more
  CHECK(dtype_numbered(0xffffffff) == nullptr);
  CHECK(dtype_names().starts_with("F32, F16, BF16, Q8_0, "));
}
