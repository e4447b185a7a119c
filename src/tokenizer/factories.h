#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "sinkref/tokenizer.h"
#include "tokenizer/added_tokens.h"

namespace sinkref {

/// No tokenizer has more entries; the largest published ones have 262,144.
constexpr int max_vocab_size = 1 << 20;

/// What a folder's tokenizer_config.json, special_tokens_map.json and added_tokens.json say.
struct TokenizerSettings {
  std::optional<bool> add_bos;
  std::optional<std::string> bos_token, eos_token;
  std::vector<AddedToken> added;
  std::vector<AddedToken> special;  ///< named or extra special tokens, without ids
  bool add_prefix_space = true;          ///< sentencepiece: "▁" before the text
  bool prefix_after_added_token = true;  ///< … and after each added token ("legacy")
  std::string file;                      ///< for messages
  /// Of a GGUF file that does not say how the text is normalised: a text that depends on it is
  /// refused.
  bool unsaid_blanks = false;      ///< whether blanks at the ends and runs of blanks stay
  bool unsaid_characters = false;  ///< whether characters beyond ASCII are replaced (NFKC)
  std::vector<std::string> notes;
};

TokenizerSettings read_tokenizer_settings(const std::filesystem::path& folder);

/// `model`: the bytes of tokenizer.model. `name` stands in messages.
std::unique_ptr<Tokenizer> make_sentencepiece_tokenizer(std::string_view model,
                                                        const std::string& name,
                                                        const TokenizerSettings& settings = {});

/// `json`: tokenizer.json of a byte-level BPE.
std::unique_ptr<Tokenizer> make_bpe_tokenizer(const nlohmann::json& json, const std::string& name,
                                              const TokenizerSettings& settings = {});

std::unique_ptr<Tokenizer> make_tokenizer_from_gguf(
    const std::map<std::string, nlohmann::json>& metadata, const std::string& name);

/// Throws InputError for an id beyond the vocabulary.
[[noreturn]] void refuse_token(const std::string& name, int id, size_t vocab_size);

}  // namespace sinkref
