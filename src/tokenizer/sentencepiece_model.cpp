#include "tokenizer/sentencepiece_model.h"

#include <bit>
#include <cstdint>

namespace sinkref {

using namespace std::string_view_literals;

// normalizer_spec (3) { add_dummy_prefix (3): false }
const std::string_view no_dummy_prefix = "\x1A\x02\x18\x00"sv;

namespace {

void put_varint(std::string& out, uint64_t value) {
  for (; value >= 0x80; value >>= 7) out += static_cast<char>(value | 0x80);
  out += static_cast<char>(value);
}

void put_number(std::string& out, unsigned field, uint64_t value) {
  put_varint(out, field << 3);
  put_varint(out, value);
}

void put_bytes(std::string& out, unsigned field, std::string_view bytes) {
  put_varint(out, field << 3 | 2);
  put_varint(out, bytes.size());
  out += bytes;
}

void put_float(std::string& out, unsigned field, float value) {
  put_varint(out, field << 3 | 5);
  const auto bits = std::bit_cast<uint32_t>(value);
  for (int shift = 0; shift < 32; shift += 8) out += static_cast<char>(bits >> shift);
}

std::string serialize(const Piece& piece) {
  std::string out;
  put_bytes(out, 1, piece.text);
  put_float(out, 2, piece.score);
  put_number(out, 3, static_cast<uint64_t>(piece.type));
  return out;
}

std::string trainer_spec(const SentencepieceModel& model) {
  std::string out;
  put_number(out, 3, model.is_bpe ? 2 : 1);
  put_number(out, 35, model.byte_fallback);
  put_bytes(out, 44, model.unk_surface);
  put_bytes(out, 45, model.unk_piece);
  put_bytes(out, 46, model.bos_piece);
  put_bytes(out, 47, model.eos_piece);
  put_bytes(out, 48, model.pad_piece);
  return out;
}

std::string normalizer_spec(const SentencepieceModel& model) {
  std::string out;
  put_bytes(out, 1, "identity");
  put_number(out, 3, model.add_dummy_prefix);
  put_number(out, 4, model.remove_extra_whitespaces);
  return out;
}

}  // namespace

std::string serialize(const SentencepieceModel& model) {
  std::string out;
  for (const Piece& piece : model.pieces) put_bytes(out, 1, serialize(piece));
  put_bytes(out, 2, trainer_spec(model));
  put_bytes(out, 3, normalizer_spec(model));
  return out;
}

}  // namespace sinkref
