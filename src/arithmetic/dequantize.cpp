// Each formula is that of the gguf package's `dequantize`, so the bits are equal too. All products
// are exact in fp32 (11 bits of a half, at most 7 of a scale, 5 of a quantised value): only the
// addition of a minimum rounds.
#include "arithmetic/dtypes.h"
#include "base/load.h"

#include <hwy/highway.h>

#ifdef __F16C__
#include <immintrin.h>
#endif

namespace sinkref {

namespace {

float bf16_to_float(uint16_t bits) {
  return std::bit_cast<float>(uint32_t{bits} << 16);
}

uint32_t select(bool condition, uint32_t yes, uint32_t no) {
  const uint32_t mask = -static_cast<uint32_t>(condition);
  return (yes & mask) | (no & ~mask);
}

// Exact for all 65536 patterns; without branches, so that loops over it vectorise.
float half_to_float(uint16_t half) {
  constexpr uint32_t smallest_normal = 1u << 23;  // a half's exponent 1, moved to fp32's place
  constexpr uint32_t infinity = 31u << 23;
  const uint32_t sign = (half & 0x8000u) << 16;
  const uint32_t magnitude = (half & 0x7fffu) << 13;
  const uint32_t normal = magnitude + ((127 - 15) << 23);
  const uint32_t infinite_or_nan = magnitude + ((255 - 31) << 23);
  // A denormal is mantissa * 2^-24: 2^-14 * (1 + mantissa / 1024) - 2^-14, exactly.
  const uint32_t denormal =
      std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude + (113u << 23)) - 0x1p-14f);
  const uint32_t finite = select(magnitude < smallest_normal, denormal, normal);
  return std::bit_cast<float>(sign | select(magnitude >= infinity, infinite_or_nan, finite));
}

float half_at(const std::byte* from) {
#ifdef __F16C__
  return _cvtsh_ss(load<uint16_t>(from));
#else
  return half_to_float(load<uint16_t>(from));
#endif
}
uint8_t byte_at(const std::byte* from) {
  return static_cast<uint8_t>(*from);
}

// Sixteen small values; in vectors by hand, as GCC takes such loops apart into single bytes.
using Bytes = uint8_t __attribute__((vector_size(16)));

// out[i] = d·(q[i] - offset) + m, or d·(q[i] - offset) alone; i < 16.
template <bool with_minimum>
HWY_ATTR void scale_16(const Bytes& q, int offset, float d, float m, float* __restrict out) {
  namespace hn = hwy::HWY_NAMESPACE;
  const hn::ScalableTag<float> tag;
  const hn::Rebind<int32_t, decltype(tag)> ints;
  const hn::Rebind<uint8_t, decltype(tag)> bytes;
  for (size_t i = 0; i < 16; i += hn::Lanes(tag)) {
    const auto whole =
        hn::PromoteTo(ints, hn::LoadU(bytes, reinterpret_cast<const uint8_t*>(&q) + i));
    auto value = hn::ConvertTo(tag, hn::Sub(whole, hn::Set(ints, offset)));
    value = hn::Mul(hn::Set(tag, d), value);
    if constexpr (with_minimum) value = hn::Add(value, hn::Set(tag, m));
    hn::StoreU(value, tag, out + i);
  }
}

// A block's 4-bit values: low nibbles are elements 0-15, high nibbles 16-31.
struct Nibbles {
  Bytes low, high;
  explicit Nibbles(const std::byte* from) {
    const Bytes all = load<Bytes>(from);
    low = all & 15;
    high = all >> 4;
  }
  // Bit i of h is the fifth bit of element i.
  void add_fifth_bits(uint32_t h) {
    for (int i = 0; i < 16; ++i) {
      low[i] |= static_cast<uint8_t>((h >> i & 1) << 4);
      high[i] |= static_cast<uint8_t>((h >> (i + 16) & 1) << 4);
    }
  }
  template <bool with_minimum>
  void scale(int offset, float d, float m, float* __restrict out) const {
    scale_16<with_minimum>(low, offset, d, m, out);
    scale_16<with_minimum>(high, offset, d, m, out + 16);
  }
};

// f16 d | 32 × i8 q                                                           value = q·d
void q8_0(const std::byte* __restrict block, float* __restrict out) {
  const float d = half_at(block);
  for (int i = 0; i < 32; ++i) out[i] = static_cast<float>(load<int8_t>(block + 2 + i)) * d;
}

// f16 d | 16 bytes of nibbles                                                 value = d·(q - 8)
void q4_0(const std::byte* __restrict block, float* __restrict out) {
  Nibbles(block + 2).scale<false>(8, half_at(block), 0, out);
}

// f16 d | f16 m | 16 bytes of nibbles                                         value = d·q + m
void q4_1(const std::byte* __restrict block, float* __restrict out) {
  Nibbles(block + 4).scale<true>(0, half_at(block), half_at(block + 2), out);
}

// f16 d | u32 h of fifth bits | 16 bytes of nibbles                           value = d·(q - 16)
void q5_0(const std::byte* __restrict block, float* __restrict out) {
  Nibbles nibbles(block + 6);
  nibbles.add_fifth_bits(load<uint32_t>(block + 2));
  nibbles.scale<false>(16, half_at(block), 0, out);
}

// f16 d | f16 m | u32 h of fifth bits | 16 bytes of nibbles                   value = d·q + m
void q5_1(const std::byte* __restrict block, float* __restrict out) {
  Nibbles nibbles(block + 8);
  nibbles.add_fifth_bits(load<uint32_t>(block + 4));
  nibbles.scale<true>(0, half_at(block), half_at(block + 2), out);
}

// The 6-bit scale s and minimum m of each of the 8 groups of 32 in a Q4_K or Q5_K block:
//   bytes 0-3: s0-s3, bytes 4-7: m0-m3, each with two bits of group j + 4 on top;
//   bytes 8-11: low nibbles s4-s7, high nibbles m4-m7.
struct Scale {
  float s, m;
};
Scale group_scale(const std::byte* scales, int group) {
  const int j = group % 4;
  const int a = byte_at(scales + j);
  const int b = byte_at(scales + 4 + j);
  if (group < 4) return {static_cast<float>(a & 63), static_cast<float>(b & 63)};
  const int c = byte_at(scales + 8 + j);
  return {static_cast<float>((c & 15) | (a >> 6 << 4)),
          static_cast<float>((c >> 4) | (b >> 6 << 4))};
}

// f16 d | f16 dmin | 12 bytes of scales | 4 × 32 bytes: low nibbles are one group of 32, high
// nibbles the next                                               value = (d·s)·q - dmin·m
void q4_k(const std::byte* __restrict block, float* __restrict out) {
  const float d = half_at(block);
  const float dmin = half_at(block + 2);
  for (int group = 0; group < 8; ++group) {
    const Scale scale = group_scale(block + 4, group);
    const float ds = d * scale.s;
    const float dm = dmin * scale.m;
    const std::byte* nibbles = block + 16 + group / 2 * 32;
    const int shift = group % 2 * 4;
    for (int i = 0; i < 32; ++i)
      out[group * 32 + i] = ds * static_cast<float>(byte_at(nibbles + i) >> shift & 15) - dm;
  }
}

// As Q4_K with 32 bytes h before the nibbles: bit g of h[i] is the fifth bit of element i of group
// g
void q5_k(const std::byte* __restrict block, float* __restrict out) {
  const float d = half_at(block);
  const float dmin = half_at(block + 2);
  const std::byte* h = block + 16;
  for (int group = 0; group < 8; ++group) {
    const Scale scale = group_scale(block + 4, group);
    const float ds = d * scale.s;
    const float dm = dmin * scale.m;
    const std::byte* nibbles = block + 48 + group / 2 * 32;
    const int shift = group % 2 * 4;
    for (int i = 0; i < 32; ++i) {
      const int q = (byte_at(nibbles + i) >> shift & 15) | (byte_at(h + i) >> group & 1) << 4;
      out[group * 32 + i] = ds * static_cast<float>(q) - dm;
    }
  }
}

// 128 bytes of nibbles | 64 bytes h of bit pairs | 16 × i8 scale of 16 elements each | f16 d
// Each half of 128 elements has 64 bytes of nibbles (low: elements 0-63, high: 64-127) and 32 of
// h, whose bit pair p belongs to elements 32p … 32p + 31.                value = (d·s)·(q - 32)
void q6_k(const std::byte* __restrict block, float* __restrict out) {
  const float d = half_at(block + 208);
  for (int group = 0; group < 16; ++group) {
    const float ds = d * static_cast<float>(load<int8_t>(block + 192 + group));
    const int half = group / 8;
    const int first = group % 8 * 16;  // within the half
    const std::byte* nibbles = block + half * 64 + first % 64;
    const int nibble_shift = first / 64 * 4;
    const std::byte* pairs = block + 128 + half * 32 + first % 32;
    const int pair_shift = first / 32 * 2;
    for (int i = 0; i < 16; ++i) {
      const int low = byte_at(nibbles + i) >> nibble_shift & 15;
      const int high = byte_at(pairs + i) >> pair_shift & 3;
      out[group * 16 + i] = ds * static_cast<float>((low | high << 4) - 32);
    }
  }
}

template <void (*widen_block)(const std::byte*, float*)>
void widen_blocks(const DTypeInfo& type, const std::byte* row, size_t begin, size_t end,
                  float* out) {
  const std::byte* block = row + begin / type.block * type.bytes;
  for (size_t i = begin; i < end; i += type.block, block += type.bytes, out += type.block)
    widen_block(block, out);
}

template <float (*to_float)(uint16_t)>
void widen_16_bit(const DTypeInfo&, const std::byte* __restrict row, size_t begin, size_t end,
                  float* __restrict out) {
  for (size_t i = begin; i < end; ++i) out[i - begin] = to_float(load<uint16_t>(row + 2 * i));
}

void copy_fp32(const DTypeInfo&, const std::byte* row, size_t begin, size_t end, float* out) {
  std::memcpy(out, row + 4 * begin, 4 * (end - begin));
}

// The table of dtypes. A new one is a row here with the function above that widens it, and its name in
// DType (in the same order); those that cannot be used are known by their size.
// Columns: DType, {name, block, bytes}, GGUF's number, whether safetensors has it, how it is widened.
// https://github.com/ggml-org/ggml/blob/master/docs/gguf.md,
// https://github.com/huggingface/safetensors#format
constexpr DTypeRow table[] = {
    {DType::F32, {"F32", 1, 4}, 0, true, copy_fp32},
    {DType::F16, {"F16", 1, 2}, 1, true, widen_16_bit<half_to_float>},
    {DType::BF16, {"BF16", 1, 2}, 30, true, widen_16_bit<bf16_to_float>},
    {DType::Q8_0, {"Q8_0", 32, 34}, 8, false, widen_blocks<q8_0>},
    {DType::Q4_0, {"Q4_0", 32, 18}, 2, false, widen_blocks<q4_0>},
    {DType::Q4_1, {"Q4_1", 32, 20}, 3, false, widen_blocks<q4_1>},
    {DType::Q5_0, {"Q5_0", 32, 22}, 6, false, widen_blocks<q5_0>},
    {DType::Q5_1, {"Q5_1", 32, 24}, 7, false, widen_blocks<q5_1>},
    {DType::Q4_K, {"Q4_K", 256, 144}, 12, false, widen_blocks<q4_k>},
    {DType::Q5_K, {"Q5_K", 256, 176}, 13, false, widen_blocks<q5_k>},
    {DType::Q6_K, {"Q6_K", 256, 210}, 14, false, widen_blocks<q6_k>},
    {{}, {"Q8_1", 32, 40}, 9, false, nullptr},
    {{}, {"Q2_K", 256, 84}, 10, false, nullptr},
    {{}, {"Q3_K", 256, 110}, 11, false, nullptr},
    {{}, {"Q8_K", 256, 292}, 15, false, nullptr},
    {{}, {"IQ2_XXS", 256, 66}, 16, false, nullptr},
    {{}, {"IQ2_XS", 256, 74}, 17, false, nullptr},
    {{}, {"IQ3_XXS", 256, 98}, 18, false, nullptr},
    {{}, {"IQ1_S", 256, 50}, 19, false, nullptr},
    {{}, {"IQ4_NL", 32, 18}, 20, false, nullptr},
    {{}, {"IQ3_S", 256, 110}, 21, false, nullptr},
    {{}, {"IQ2_S", 256, 82}, 22, false, nullptr},
    {{}, {"IQ4_XS", 256, 136}, 23, false, nullptr},
    {{}, {"I8", 1, 1}, 24, true, nullptr},
    {{}, {"I16", 1, 2}, 25, true, nullptr},
    {{}, {"I32", 1, 4}, 26, true, nullptr},
    {{}, {"I64", 1, 8}, 27, true, nullptr},
    {{}, {"F64", 1, 8}, 28, true, nullptr},
    {{}, {"IQ1_M", 256, 56}, 29, false, nullptr},
    {{}, {"TQ1_0", 256, 54}, 34, false, nullptr},
    {{}, {"TQ2_0", 256, 66}, 35, false, nullptr},
    {{}, {"MXFP4", 32, 17}, 39, false, nullptr},
    {{}, {"NVFP4", 64, 36}, 40, false, nullptr},
    {{}, {"Q1_0", 128, 18}, 41, false, nullptr},
    {{}, {"BOOL", 1, 1}, no_ggml, true, nullptr},
    {{}, {"F4", 2, 1}, no_ggml, true, nullptr},
    {{}, {"F6_E2M3", 4, 3}, no_ggml, true, nullptr},
    {{}, {"F6_E3M2", 4, 3}, no_ggml, true, nullptr},
    {{}, {"U8", 1, 1}, no_ggml, true, nullptr},
    {{}, {"F8_E5M2", 1, 1}, no_ggml, true, nullptr},
    {{}, {"F8_E4M3", 1, 1}, no_ggml, true, nullptr},
    {{}, {"F8_E8M0", 1, 1}, no_ggml, true, nullptr},
    {{}, {"F8_E4M3FNUZ", 1, 1}, no_ggml, true, nullptr},
    {{}, {"F8_E5M2FNUZ", 1, 1}, no_ggml, true, nullptr},
    {{}, {"U16", 1, 2}, no_ggml, true, nullptr},
    {{}, {"U32", 1, 4}, no_ggml, true, nullptr},
    {{}, {"C64", 1, 8}, no_ggml, true, nullptr},
    {{}, {"U64", 1, 8}, no_ggml, true, nullptr},
};

// dtype_info() finds a DType's row by its number.
constexpr bool in_order() {
  size_t usable = 0;
  for (size_t i = 0; i < std::size(table); ++i)
    if (table[i].dtype && (table[i].dtype != DType(i) || ++usable != i + 1)) return false;
  return true;
}
static_assert(in_order(), "the rows of DType come first, in its order");

}  // namespace

std::span<const DTypeRow> dtype_table() { return table; }

}  // namespace sinkref
