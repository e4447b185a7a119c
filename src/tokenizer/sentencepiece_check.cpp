#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>

#include "sinkref/error.h"
#include "tokenizer/factories.h"
#include "tokenizer/sentencepiece_model.h"
#include "tokenizer/utf8.h"

namespace sinkref {

namespace {

constexpr size_t max_piece_bytes = 4096;
constexpr const char* remedy = "download tokenizer.model again";

// One field of the protobuf wire format: number and either a varint, a fixed number or bytes.
struct Field {
  uint64_t number = 0;
  unsigned wire_type = 0;
  uint64_t value = 0;
  std::string_view bytes;
};

class WireReader {
 public:
  WireReader(std::string_view bytes, const std::string& name) : rest_(bytes), name_(name) {}

  bool done() const { return rest_.empty(); }

  Field next() {
    Field field;
    const uint64_t key = varint();
    field.number = key >> 3;
    field.wire_type = key & 7;
    if (field.number == 0 || field.number > (1u << 29) - 1) fail("a field number out of range");
    if (field.wire_type == 0)
      field.value = varint();
    else if (field.wire_type == 1)
      field.value = fixed(8);
    else if (field.wire_type == 2)
      field.bytes = take(varint());
    else if (field.wire_type == 5)
      field.value = fixed(4);
    else
      fail("wire type " + std::to_string(field.wire_type));
    return field;
  }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    refuse(name_, "expected a sentencepiece model, found " + what + " in the protobuf", remedy);
  }

  std::string_view take(uint64_t size) {
    if (size > rest_.size()) fail("a field reaches beyond the end of its message");
    const std::string_view bytes = rest_.substr(0, size);
    rest_.remove_prefix(size);
    return bytes;
  }

  uint64_t varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const auto byte = static_cast<unsigned char>(take(1)[0]);
      value |= uint64_t(byte & 0x7F) << shift;
      if (byte < 0x80) return value;
    }
    fail("a varint of more than ten bytes");
  }

  uint64_t fixed(size_t size) {
    const std::string_view bytes = take(size);
    uint64_t value = 0;
    for (size_t i = size; i-- > 0;) value = value << 8 | static_cast<unsigned char>(bytes[i]);
    return value;
  }

  std::string_view rest_;
  const std::string& name_;
};

// Reads the fields of one message, refusing a known field of another wire type.
class ModelReader {
 public:
  explicit ModelReader(const std::string& name) : name_(name) {}

  SentencepieceModel read(std::string_view bytes) {
    WireReader wire(bytes, name_);
    while (!wire.done()) {
      const Field field = wire.next();
      if (field.number > 5 && field.number < 200)
        fail("ModelProto has the unknown field " + std::to_string(field.number));
      if (field.number == 1) read_piece(message(field, "pieces"));
      if (field.number == 2) read_trainer(message(field, "trainer_spec"));
      if (field.number == 3) read_normalizer(message(field, "normalizer_spec"));
      if (field.number == 5) read_denormalizer(message(field, "denormalizer_spec"));
    }
    return std::move(model_);
  }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    refuse(name_, "expected a usable sentencepiece model, found that " + what, remedy);
  }

  uint64_t typed(const Field& field, unsigned wire_type, const char* what) const {
    if (field.wire_type != wire_type)
      fail(std::string(what) + " has wire type " + std::to_string(field.wire_type) + ", expected " +
           std::to_string(wire_type));
    return field.value;
  }
  std::string_view message(const Field& field, const char* what) const {
    typed(field, 2, what);
    return field.bytes;
  }
  bool boolean(const Field& field, const char* what) const { return typed(field, 0, what) != 0; }

  std::string text(const Field& field, const char* what) const {
    const std::string value(message(field, what));
    if (value.empty()) fail(std::string(what) + " is empty");
    if (value.size() > max_piece_bytes)
      fail(std::string(what) + " has " + std::to_string(value.size()) +
           " bytes, expected at most " + std::to_string(max_piece_bytes));
    if (!is_utf8(value)) fail(std::string(what) + " " + sinkref::quoted(value) + " is not UTF-8");
    if (value.find('\0') != std::string::npos)
      fail(std::string(what) + " " + sinkref::quoted(value) + " contains NUL");
    return value;
  }

  void read_piece(std::string_view bytes) {
    if (model_.pieces.size() == max_vocab_size)
      fail("it has more than " + std::to_string(max_vocab_size) + " pieces");
    const std::string where = "piece " + std::to_string(model_.pieces.size());
    Piece piece;
    WireReader wire(bytes, name_);
    while (!wire.done()) {
      const Field field = wire.next();
      if (field.number == 1) piece.text = text(field, where.c_str());
      if (field.number == 2)
        piece.score = std::bit_cast<float>(static_cast<uint32_t>(typed(field, 5, "score")));
      if (field.number == 3) piece.type = piece_type(typed(field, 0, "type"), where);
    }
    if (piece.text.empty()) fail(where + " is empty");
    if (!std::isfinite(piece.score)) fail("the score of " + where + " is not finite");
    if (piece.type == PieceType::byte && byte_of_piece(piece.text) < 0)
      fail("a byte piece is " + sinkref::quoted(piece.text) + ", expected the form <0x0A>");
    model_.pieces.push_back(std::move(piece));
  }

  PieceType piece_type(uint64_t value, const std::string& where) const {
    if (value < 1 || value > 6)
      fail("the type of " + where + " is " + std::to_string(value) + ", expected 1 to 6");
    return static_cast<PieceType>(value);
  }

  void read_trainer(std::string_view bytes) {
    WireReader wire(bytes, name_);
    while (!wire.done()) {
      const Field field = wire.next();
      if (field.number == 3) model_.is_bpe = model_type(typed(field, 0, "model_type"));
      if (field.number == 24 && boolean(field, "treat_whitespace_as_suffix"))
        fail("treat_whitespace_as_suffix is true, expected false as in LLaMA and Mistral");
      if (field.number == 35) model_.byte_fallback = boolean(field, "byte_fallback");
      if (field.number == 44) model_.unk_surface = text(field, "unk_surface");
      if (field.number == 45) model_.unk_piece = text(field, "unk_piece");
      if (field.number == 46) model_.bos_piece = text(field, "bos_piece");
      if (field.number == 47) model_.eos_piece = text(field, "eos_piece");
      if (field.number == 48) model_.pad_piece = text(field, "pad_piece");
    }
  }

  bool model_type(uint64_t value) const {
    if (value != 1 && value != 2)
      fail("model_type is " + std::to_string(value) + ", expected unigram (1) or BPE (2)");
    return value == 2;
  }

  void read_normalizer(std::string_view bytes) {
    WireReader wire(bytes, name_);
    while (!wire.done()) {
      const Field field = wire.next();
      if (field.number == 2) {
        check_charsmap(message(field, "precompiled_charsmap"));
        model_.has_charsmap = !field.bytes.empty();
      }
      if (field.number == 3) model_.add_dummy_prefix = boolean(field, "add_dummy_prefix");
      if (field.number == 4)
        model_.remove_extra_whitespaces = boolean(field, "remove_extra_whitespaces");
      if (field.number == 5 && !boolean(field, "escape_whitespaces"))
        fail("escape_whitespaces is false, expected true as in LLaMA and Mistral");
    }
  }

  void read_denormalizer(std::string_view bytes) {
    WireReader wire(bytes, name_);
    while (!wire.done()) {
      const Field field = wire.next();
      if (field.number == 2 && !message(field, "precompiled_charsmap").empty())
        fail("it has a denormalizer table, which LLaMA and Mistral have not");
    }
  }

  void check_charsmap(std::string_view table) const;

  const std::string& name_;
  SentencepieceModel model_;
};

void ModelReader::check_charsmap(std::string_view table) const {
  if (table.empty()) return;
  if (const char* problem = charsmap_problem(table))
    fail(std::string("its normalization table (precompiled_charsmap) has ") + problem);
}

// libsentencepiece keeps room for 64 user-defined pieces that are prefixes of one another.
void check_user_defined(const SentencepieceModel& model, const std::string& name) {
  std::vector<std::string_view> sorted, prefixes;
  for (const Piece& piece : model.pieces)
    if (piece.type == PieceType::user_defined) sorted.push_back(piece.text);
  std::sort(sorted.begin(), sorted.end());
  for (std::string_view piece : sorted) {
    while (!prefixes.empty() && !piece.starts_with(prefixes.back())) prefixes.pop_back();
    prefixes.push_back(piece);
    if (prefixes.size() > 32)
      refuse(name,
             "more than 32 user-defined pieces are prefixes of " + quoted(std::string(piece)) +
                 ", expected fewer",
             remedy);
  }
}

}  // namespace

int byte_of_piece(std::string_view piece) {
  constexpr std::string_view digits = "0123456789ABCDEF";
  if (piece.size() != 6 || !piece.starts_with("<0x") || piece[5] != '>') return -1;
  const size_t high = digits.find(piece[3]), low = digits.find(piece[4]);
  if (high == digits.npos || low == digits.npos) return -1;
  return static_cast<int>(high * 16 + low);
}

SentencepieceModel check_sentencepiece_model(std::string_view bytes, const std::string& name) {
  if (bytes.empty()) refuse(name, "is empty, expected a sentencepiece model", remedy);
  if (bytes.starts_with("version https://git-lfs"))
    refuse(name, "is a git-lfs pointer, expected the file itself", "run git lfs pull");
  SentencepieceModel model = ModelReader(name).read(bytes);
  if (model.pieces.empty())
    refuse(name, "is a sentencepiece model without pieces, expected some", remedy);
  check_user_defined(model, name);
  return model;
}

}  // namespace sinkref
