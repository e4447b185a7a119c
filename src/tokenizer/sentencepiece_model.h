#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace sinkref {

/// Numbers as in sentencepiece_model.proto and in GGUF's tokenizer.ggml.token_type.
enum class PieceType { normal = 1, unknown, control, user_defined, unused, byte };

struct Piece {
  std::string text;
  float score = 0;
  PieceType type = PieceType::normal;
};

/// The fields of a sentencepiece ModelProto that decide ids and text. The defaults are those of
/// sentencepiece_model.proto.
struct SentencepieceModel {
  std::vector<Piece> pieces;
  std::string unk_surface = " \xE2\x81\x87 ";
  std::string unk_piece = "<unk>", bos_piece = "<s>", eos_piece = "</s>", pad_piece = "<pad>";
  bool is_bpe = false;
  bool add_dummy_prefix = true;
  bool remove_extra_whitespaces = true;
  bool byte_fallback = false;
  bool has_charsmap = false;  ///< characters are replaced (NFKC); serialize() writes none
};

/// Reads and checks the protobuf before libsentencepiece sees it: version 0.1.97 crashes on long
/// pieces and on crafted normalisation tables, and takes NaN scores, NUL and invalid UTF-8.
SentencepieceModel check_sentencepiece_model(std::string_view bytes, const std::string& name);

/// What is wrong with a table of normalisation rules (precompiled_charsmap), or null if
/// libsentencepiece can follow it safely.
const char* charsmap_problem(std::string_view table);

/// The value of a byte piece ("<0x0A>" is 10), or -1.
int byte_of_piece(std::string_view piece);

/// The protobuf of a BPE model, for vocabularies that come from GGUF.
std::string serialize(const SentencepieceModel& model);

/// Protobuf bytes that, appended to a model's, switch the space before the text off: a later
/// value of a field replaces an earlier one.
extern const std::string_view no_dummy_prefix;

}  // namespace sinkref
