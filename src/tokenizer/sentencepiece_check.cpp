#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "sinkref/error.h"
#include "tokenizer/factories.h"
#include "tokenizer/sentencepiece_model.h"
#include "tokenizer/utf8.h"

namespace sinkref {

namespace {

constexpr size_t max_piece_bytes = 4096;
constexpr const char* remedy = "; download tokenizer.model again";

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
    throw InputError(name_ + ": not a sentencepiece model: " + what + " in the protobuf" + remedy);
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
        fail("unknown field " + std::to_string(field.number) + " in ModelProto");
      if (field.number == 1) read_piece(message(field, "pieces"));
      if (field.number == 2) read_trainer(message(field, "trainer_spec"));
      if (field.number == 3) read_normalizer(message(field, "normalizer_spec"));
      if (field.number == 5) read_denormalizer(message(field, "denormalizer_spec"));
    }
    return std::move(model_);
  }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    throw InputError(name_ + ": not a usable sentencepiece model: " + what + remedy);
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
      fail(std::string(what) + " of " + std::to_string(value.size()) + " bytes, expected at most " +
           std::to_string(max_piece_bytes));
    if (!is_utf8(value)) fail(std::string(what) + " " + sinkref::quoted(value) + " is not UTF-8");
    if (value.find('\0') != std::string::npos)
      fail(std::string(what) + " " + sinkref::quoted(value) + " contains NUL");
    return value;
  }

  void read_piece(std::string_view bytes) {
    if (model_.pieces.size() == max_vocab_size)
      fail("more than " + std::to_string(max_vocab_size) + " pieces");
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
      fail("byte piece " + sinkref::quoted(piece.text) + ", expected the form <0x0A>");
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
      fail("model_type " + std::to_string(value) + ", expected unigram (1) or BPE (2)");
    return value == 2;
  }

  void read_normalizer(std::string_view bytes) {
    WireReader wire(bytes, name_);
    while (!wire.done()) {
      const Field field = wire.next();
      if (field.number == 2) check_charsmap(message(field, "precompiled_charsmap"));
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

// The table of normalisation rules: a uint32 size, a Darts double array of that size, and the
// NUL-terminated replacements its values point to. libsentencepiece follows both unchecked, and
// keeps at most 32 rules that start at one place of the text.
class Charsmap {
 public:
  // Null if the table can be followed safely, else what is wrong.
  const char* problem(std::string_view table) {
    if (table.size() < 4) return "shorter than its size field";
    const uint32_t trie_bytes = word(table, 0);
    if (trie_bytes > table.size() - 4 || trie_bytes % 4 != 0 || trie_bytes == 0)
      return "a trie size that does not fit";
    trie_ = table.substr(4, trie_bytes);
    replacements_ = table.substr(4 + trie_bytes);
    if (replacements_.empty() || replacements_.back() != '\0')
      return "replacements that do not end in NUL";
    if (!is_utf8(replacements_)) return "replacements that are not UTF-8";
    nested_.assign(units(), unseen);
    return nested_rules(0, 0) < 0 ? problem_ : nullptr;
  }

 private:
  static constexpr int unseen = -2, being_visited = -3;
  static constexpr int max_rule_bytes = 256, max_nested_rules = 32;

  static uint32_t word(std::string_view bytes, size_t index) {
    uint32_t value;
    std::memcpy(&value, bytes.data() + 4 * index, 4);
    return value;
  }
  size_t units() const { return trie_.size() / 4; }

  int fail(const char* problem) {
    problem_ = problem;
    return -1;
  }

  // The most rules on one path from `node` on, or -1. Nodes may be shared, so the answer is kept.
  int nested_rules(size_t node, int depth) {
    if (depth > max_rule_bytes) return fail("a rule of more than 256 bytes, or a cycle");
    if (nested_[node] == being_visited) return fail("a cycle in the trie");
    if (nested_[node] != unseen) return nested_[node];
    nested_[node] = being_visited;
    const uint32_t unit = word(trie_, node);
    const size_t base = node ^ (size_t(unit >> 10) << ((unit & 0x200) >> 6));
    if ((base | 0xFF) >= units()) return fail("a trie node out of bounds");
    const int here = (unit & 0x100) != 0;
    if (here && !replacement_exists(word(trie_, base) & 0x7FFFFFFF))
      return fail("a replacement out of bounds");
    int below = 0;
    for (uint32_t label = 1; label < 256; ++label) {
      if ((word(trie_, base ^ label) & 0x800000FF) != label) continue;
      const int nested = nested_rules(base ^ label, depth + 1);
      if (nested < 0) return -1;
      below = std::max(below, nested);
    }
    if (here + below > max_nested_rules) return fail("more than 32 rules inside one another");
    return nested_[node] = here + below;
  }

  bool replacement_exists(size_t offset) const {
    return offset < replacements_.size() &&
           (static_cast<unsigned char>(replacements_[offset]) & 0xC0) != 0x80;
  }

  std::string_view trie_, replacements_;
  std::vector<int> nested_;
  const char* problem_ = nullptr;
};

void ModelReader::check_charsmap(std::string_view table) const {
  if (table.empty()) return;
  if (const char* problem = Charsmap().problem(table))
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
      throw InputError(name + ": more than 32 user-defined pieces are prefixes of " +
                       quoted(std::string(piece)) + ", expected fewer" + remedy);
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
  if (bytes.empty()) throw InputError(name + ": is empty, expected a sentencepiece model" + remedy);
  if (bytes.starts_with("version https://git-lfs"))
    throw InputError(name + ": is a git-lfs pointer, not the file itself; run git lfs pull");
  SentencepieceModel model = ModelReader(name).read(bytes);
  if (model.pieces.empty())
    throw InputError(name + ": a sentencepiece model without pieces" + remedy);
  check_user_defined(model, name);
  return model;
}

}  // namespace sinkref
