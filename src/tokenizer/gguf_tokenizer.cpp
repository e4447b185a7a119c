#include <algorithm>
#include <cmath>
#include <set>

#include "sinkref/error.h"
#include "tokenizer/bpe_tokenizer.h"
#include "tokenizer/factories.h"
#include "tokenizer/sentencepiece_model.h"
#include "tokenizer/utf8.h"

namespace sinkref {

namespace {

using nlohmann::json;

// What a value of tokenizer.ggml.pre says about cutting the text.
struct PreTokenizerName {
  const char* pre;
  const char* flavour;
  std::vector<const char*> patterns;
  bool ignore_merges;
  bool adds_bos;
};

constexpr float added_score = -1000;  // that converters give to tokens without one

// Compatibility characters that NFKC, sentencepiece's usual normalisation, replaces.
constexpr std::initializer_list<const char*> changed_by_nfkc = {
    "ª", "²", "³", "µ", "¹", "º", "¼", "½", "¾", "…", "™", "″", "⁰", "₁", "ℓ", "①", "ﬁ", "！", "，"};

// "default" is not here: llama.cpp and the model's own tokenizer disagree on what it means.
const std::vector<PreTokenizerName>& known_pre_tokenizers() {
  static const std::vector<PreTokenizerName> table = {
      {"llama-bpe", "llama3", {pattern::llama3}, true, true},
      {"llama3", "llama3", {pattern::llama3}, true, true},
      {"llama-v3", "llama3", {pattern::llama3}, true, true},
      {"smollm", "smollm", {pattern::digit, pattern::gpt2}, false, false},
      {"gpt-2", "gpt2", {pattern::gpt2}, false, false},
  };
  return table;
}

class GgufVocabulary {
 public:
  GgufVocabulary(const std::map<std::string, json>& metadata, const std::string& name)
      : metadata_(metadata), name_(name) {}

  std::unique_ptr<Tokenizer> make() {
    const std::string model = text("model");
    if (model.empty())
      fail("has no tokenizer.ggml.model, expected one to tokenize a text",
           "give token ids instead");
    if (flag("add_eos_token", false))
      fail("tokenizer.ggml.add_eos_token is true, expected false as sinkref appends no token");
    read_tokens();
    if (model == "llama") return make_sentencepiece();
    if (model == "gpt2") return make_bpe();
    fail("tokenizer.ggml.model is " + quoted(model) + ", expected \"llama\" or \"gpt2\"");
  }

 private:
  [[noreturn]] void fail(const std::string& what,
                         const std::string& remedy = "convert the model again") const {
    refuse(name_, what, remedy);
  }

  const json* find(const char* key) const {
    const auto found = metadata_.find(std::string("tokenizer.ggml.") + key);
    return found == metadata_.end() ? nullptr : &found->second;
  }

  [[noreturn]] void wrong_type(const char* key, const json& value, const char* expected) const {
    fail(std::string("tokenizer.ggml.") + key + " is " + value.type_name() + ", expected " +
         expected);
  }

  std::string text(const char* key) const {
    const json* value = find(key);
    if (value == nullptr) return "";
    if (!value->is_string()) wrong_type(key, *value, "a string");
    return value->get<std::string>();
  }

  bool flag(const char* key, bool by_default) const {
    const json* value = find(key);
    if (value == nullptr) return by_default;
    if (!value->is_boolean()) wrong_type(key, *value, "a boolean");
    return value->get<bool>();
  }

  // An array as long as the vocabulary, or absent if that is allowed.
  const json* array(const char* key, size_t size, bool required) const {
    const json* value = find(key);
    if (value == nullptr && required) fail(std::string("has no tokenizer.ggml.") + key + ", expected an array");
    if (value == nullptr) return nullptr;
    if (!value->is_array()) wrong_type(key, *value, "an array");
    if (size != 0 && value->size() != size)
      fail(std::string("tokenizer.ggml.") + key + " has " + std::to_string(value->size()) +
           " entries, expected " + std::to_string(size));
    return value;
  }

  std::optional<int> id(const char* key, const json& by_default = nullptr) const {
    const json& value = find(key) == nullptr ? by_default : *find(key);
    if (value.is_null()) return {};
    if (!value.is_number_integer()) wrong_type(key, value, "an integer");
    if (value < 0 || value >= pieces_.size())
      fail(std::string("tokenizer.ggml.") + key + " is " + value.dump() + ", expected 0 to " +
           std::to_string(pieces_.size() - 1));
    return value.get<int>();
  }

  void read_tokens() {
    const json& tokens = *array("tokens", 0, true);
    if (tokens.empty() || tokens.size() > size_t(max_vocab_size))
      fail("tokenizer.ggml.tokens has " + std::to_string(tokens.size()) +
           " entries, expected 1 to " + std::to_string(max_vocab_size));
    const json* types = array("token_type", tokens.size(), false);
    const json* scores = array("scores", tokens.size(), false);
    pieces_.reserve(tokens.size());
    for (size_t i = 0; i < tokens.size(); ++i) {
      if (!tokens[i].is_string()) wrong_type("tokens", tokens[i], "strings");
      Piece piece{tokens[i].get<std::string>()};
      if (types != nullptr) piece.type = type((*types)[i]);
      if (scores != nullptr) piece.score = score((*scores)[i]);
      pieces_.push_back(std::move(piece));
    }
  }

  PieceType type(const json& value) const {
    if (!value.is_number_integer() || value < 1 || value > 6)
      fail("tokenizer.ggml.token_type holds " + value.dump().substr(0, 40) + ", expected 1 to 6");
    return static_cast<PieceType>(value.get<int>());
  }

  float score(const json& value) const {
    if (!value.is_number()) wrong_type("scores", value, "finite numbers");
    return value.get<float>();
  }

  bool has_piece_with(std::initializer_list<const char*> texts) const {
    for (const Piece& piece : pieces_)
      for (const char* text : texts)
        if (piece.type == PieceType::normal && piece.text.find(text) != piece.text.npos) return true;
    return false;
  }

  // sentencepiece's BPE scores are 0, -1, -2, … in the order of the merges.
  void check_scores() const {
    constexpr const char* remedy = "give the model's Hugging Face folder, or token ids";
    std::set<float> of_merged;
    size_t merged = 0, first = 0;
    for (const Piece& piece : pieces_) {
      if (piece.type != PieceType::normal) continue;
      if (!std::isfinite(piece.score)) fail("tokenizer.ggml.scores holds a number that is not finite, expected finite ones");
      if (piece.score != std::nearbyint(piece.score))
        fail("tokenizer.ggml.scores holds log-probabilities as of sentencepiece's unigram model, "
             "expected the ranks of a BPE: the file cannot say which model and normalisation it is",
             remedy);
      first += piece.score == 0;
      if (piece.text.size() <= utf8_length(static_cast<unsigned char>(piece.text[0]))) continue;
      ++merged;
      of_merged.insert(piece.score);
    }
    if (merged > 1 && of_merged.size() == 1)
      fail("tokenizer.ggml.scores are all alike, expected the order of the merges" +
               std::string(find("merges") ? " there and not only in tokenizer.ggml.merges" : ""),
           remedy);
    if (first > 1)
      fail("tokenizer.ggml.scores is 0 for " + std::to_string(first) +
               " ordinary tokens, expected one first merge: the file does not say which are "
               "user-defined",
           remedy);
  }

  // The same library as for tokenizer.model, so both formats give the same ids.
  std::unique_ptr<Tokenizer> make_sentencepiece() {
    if (find("scores") == nullptr) fail("has no tokenizer.ggml.scores, expected one per token");
    if (find("precompiled_charsmap") != nullptr)
      fail("has tokenizer.ggml.precompiled_charsmap, expected none as in LLaMA and Mistral");
    check_scores();
    SentencepieceModel model;
    model.is_bpe = true;
    model.add_dummy_prefix = flag("add_space_prefix", true);
    model.remove_extra_whitespaces = flag("remove_extra_whitespaces", false);
    TokenizerSettings settings;
    settings.file = name_;
    settings.add_bos = flag("add_bos_token", true);
    // Pieces that a normalisation would have kept out of the vocabulary show that there is none.
    // Who writes the key also writes precompiled_charsmap where there is one.
    const bool is_said = find("remove_extra_whitespaces") != nullptr;
    settings.unsaid_blanks = !is_said && !has_piece_with({"▁▁"});
    settings.unsaid_characters = !is_said && !has_piece_with(changed_by_nfkc);
    model.unk_piece = pieces_[*id("unknown_token_id", 0)].text;
    model.bos_piece = pieces_[*id("bos_token_id", 1)].text;
    model.eos_piece = pieces_[*id("eos_token_id", 2)].text;
    for (Piece& piece : pieces_) {
      model.byte_fallback |= piece.type == PieceType::byte;
      // Converters give a folder's added tokens this score; they are cut out before sentencepiece.
      // Others are sentencepiece's own.
      const bool is_added = piece.type == PieceType::user_defined && piece.score == added_score;
      if (is_added) piece.type = PieceType::control;
      if (is_added && settings.notes.empty())
        settings.notes.push_back(
            "The GGUF file does not say whether text after an added token starts with a space: "
            "taken as in transformers' legacy tokenizer, which puts one.");
    }
    model.pieces = std::move(pieces_);
    return make_sentencepiece_tokenizer(serialize(model), name_, settings);
  }

  std::unique_ptr<Tokenizer> make_bpe() {
    const PreTokenizerName& pre = pre_tokenizer();
    BpeModel model;
    model.name = name_;
    model.flavour = pre.flavour;
    for (const char* pattern : pre.patterns) model.pre_tokenizer.add(pattern, name_);
    model.ignore_merges = pre.ignore_merges;
    model.bos = id("bos_token_id");
    model.eos = id("eos_token_id");
    model.adds_bos = flag("add_bos_token", pre.adds_bos);
    if (model.adds_bos && !model.bos)
      fail("has no tokenizer.ggml.bos_token_id, expected one as add_bos_token is true");
    for (const json& merge : *array("merges", 0, true)) {
      if (!merge.is_string()) wrong_type("merges", merge, "strings");
      model.merges.push_back(parse_merge(merge.get_ref<const std::string&>(), name_));
    }
    if (find("token_type") == nullptr)
      fail("has no tokenizer.ggml.token_type, expected one per token: it says which are cut out of "
           "the text");
    const bool has_long_tokens = std::any_of(pieces_.begin(), pieces_.end(), [](const Piece& piece) {
      return piece.type == PieceType::normal && !piece.text.empty() &&
             piece.text.size() > utf8_length(static_cast<unsigned char>(piece.text[0]));
    });
    if (model.merges.empty() && has_long_tokens)
      fail("tokenizer.ggml.merges is empty, expected the merges that make its longer tokens");
    model.first_added_id = pieces_.size();
    model.tokens.reserve(pieces_.size());
    for (Piece& piece : pieces_) add_token(std::move(piece), model);
    pieces_ = {};
    return make_bpe_tokenizer(std::move(model));
  }

  void add_token(Piece piece, BpeModel& model) const {
    const int id = static_cast<int>(model.tokens.size());
    if (piece.text.empty()) fail("token " + std::to_string(id) + " is empty, expected its text");
    const bool in_text = piece.type == PieceType::control || piece.type == PieceType::unknown ||
                         piece.type == PieceType::user_defined;
    if (in_text) model.added.push_back({id, piece.text});
    model.tokens.push_back(std::move(piece.text));
  }

  const PreTokenizerName& pre_tokenizer() const {
    const std::string pre = text("pre");
    for (const PreTokenizerName& known : known_pre_tokenizers())
      if (pre == known.pre) return known;
    std::string names;
    for (const PreTokenizerName& known : known_pre_tokenizers())
      names += std::string(names.empty() ? "" : ", ") + known.pre;
    fail("tokenizer.ggml.pre is " + (find("pre") ? quoted(pre) : "absent") + ", expected one of " +
             names,
         "convert the model again or give its Hugging Face folder");
  }

  const std::map<std::string, json>& metadata_;
  const std::string& name_;
  std::vector<Piece> pieces_;
};

}  // namespace

std::unique_ptr<Tokenizer> make_tokenizer_from_gguf(const std::map<std::string, json>& metadata,
                                                    const std::string& name) {
  return GgufVocabulary(metadata, name).make();
}

}  // namespace sinkref
