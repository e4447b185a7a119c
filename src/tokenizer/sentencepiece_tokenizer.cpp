#include <sentencepiece_processor.h>

#include <algorithm>
#include <unordered_map>

#include "sinkref/error.h"
#include "tokenizer/factories.h"
#include "tokenizer/sentencepiece_model.h"

namespace sinkref {

namespace {

constexpr std::string_view space_symbol = "\xE2\x96\x81";  // ▁

using Processor = sentencepiece::SentencePieceProcessor;

std::unique_ptr<Processor> load(std::string_view model, const std::string& name) {
  auto processor = std::make_unique<Processor>();
  const auto status = processor->LoadFromSerializedProto(model);
  if (!status.ok())
    refuse(name,
           "expected a model that libsentencepiece takes, it refuses this one: " +
               quoted(status.ToString()),
           "download tokenizer.model again");
  return processor;
}

// Control pieces that sentencepiece's own code gives a meaning. Their text ("<s>") is ordinary
// text for sentencepiece, and so it is here. Other control pieces are chat markers ("[INST]").
bool is_basic_control(const SentencepieceModel& model, const std::string& text) {
  return text == model.unk_piece || text == model.bos_piece || text == model.eos_piece ||
         text == model.pad_piece;
}

class SentencepieceTokenizer : public Tokenizer {
 public:
  SentencepieceTokenizer(std::string_view bytes, const std::string& name,
                         const TokenizerSettings& settings)
      : name_(name), model_(check_sentencepiece_model(bytes, name)) {
    std::string model(bytes);
    if (!settings.add_prefix_space) model += no_dummy_prefix;
    processor_ = load(model, name);
    strips_prefix_ = model_.add_dummy_prefix && settings.add_prefix_space;
    add_tokens(settings);
    if (!added_.empty() && strips_prefix_ && !settings.prefix_after_added_token)
      after_added_ = load(model.append(no_dummy_prefix), name);
    bos_ = special_id(settings.bos_token, processor_->bos_id(), settings.file);
    eos_ = special_id(settings.eos_token, processor_->eos_id(), settings.file);
    unsaid_blanks_ = settings.unsaid_blanks;
    unsaid_characters_ = settings.unsaid_characters;
    notes_ = settings.notes;
    measure_pieces();
    adds_bos_ = settings.add_bos.value_or(bos_.has_value());
    if (adds_bos_ && !bos_)
      refuse(settings.file,
             "add_bos_token is true, expected false as " + name + " has no BOS token",
             "set it to false or name one as bos_token");
  }

  std::string decode(std::span<const int> ids) const override {
    std::string text;
    bool at_start = strips_prefix_;
    for (int id : ids) {
      const std::string token = token_text(id);
      const bool prefix = at_start && is_normal(id) && token.starts_with(' ');
      text += token.substr(prefix ? 1 : 0);
      at_start &= token.empty();
    }
    return text;
  }

  std::string piece(int id) const override {
    if (id >= 0 && static_cast<size_t>(id) < model_.pieces.size()) return model_.pieces[id].text;
    const auto added = added_text_.find(id);
    if (added == added_text_.end()) refuse_token(name_, id, vocab_size());
    return added->second;
  }

  size_t vocab_size() const override {
    const size_t beyond = added_text_.empty() ? 0 : added_text_.rbegin()->first + 1;
    return std::max(model_.pieces.size(), beyond);
  }
  std::optional<int> bos_id() const override { return bos_; }
  std::optional<int> eos_id() const override { return eos_; }
  bool adds_bos() const override { return adds_bos_; }
  size_t first_added_id() const override { return model_.pieces.size(); }
  size_t least_ids(std::string_view text) const override {
    return longest_ == 0 ? 0 : (text.size() + longest_ - 1) / longest_;
  }
  std::string description() const override {
    return model_.is_bpe ? "sentencepiece BPE" : "sentencepiece unigram";
  }

 protected:
  std::vector<int> encode_without_bos(std::string_view text) const override {
    std::vector<int> ids;
    bool after_added = false;
    for (const Segment& segment : added_.split(text)) {
      if (segment.id >= 0) {
        ids.push_back(segment.id);
        after_added = true;
        continue;
      }
      check_unsaid(segment.text);
      const Processor& processor = after_added && after_added_ ? *after_added_ : *processor_;
      std::vector<int> part;
      const auto status = processor.Encode(segment.text, &part);
      if (!status.ok())
        refuse(name_,
               "expected a text that libsentencepiece encodes, it refuses this one: " +
                   quoted(status.ToString()),
               "shorten it");
      ids.insert(ids.end(), part.begin(), part.end());
    }
    return ids;
  }

 private:
  void add_tokens(const TokenizerSettings& settings) {
    std::vector<AddedToken> tokens;
    for (size_t id = 0; id < model_.pieces.size(); ++id) {
      const Piece& piece = model_.pieces[id];
      if (piece.type == PieceType::control && !is_basic_control(model_, piece.text)) {
        tokens.push_back({static_cast<int>(id), piece.text});
        added_text_.emplace(id, piece.text);
      }
      ids_.emplace(piece.text, static_cast<int>(id));
    }
    for (const AddedToken& token : settings.added) add_token(token, settings.file, tokens);
    for (const AddedToken& token : settings.special)
      if (token.content != settings.bos_token && token.content != settings.eos_token)
        add_special_token(token, tokens);
    for (const AddedToken& token : tokens) strips_blanks_ |= token.lstrip || token.rstrip;
    added_ = AddedTokens(std::move(tokens));
  }

  void add_token(const AddedToken& token, const std::string& file,
                 std::vector<AddedToken>& tokens) {
    const auto [known, is_new] = ids_.emplace(token.content, token.id);
    if (known->second != token.id || (is_new && token.id < int(model_.pieces.size())))
      refuse(file,
             "added token " + sinkref::quoted(token.content) + " has id " +
                 std::to_string(token.id) + ", expected one at which " + name_ +
                 " has no other token",
             "take both files from one model");
    if (!is_new) return;  // libsentencepiece knows it
    added_text_.emplace(token.id, token.content);
    tokens.push_back(token);
  }

  // Special tokens beyond the vocabulary get the next ids, as in transformers; BOS and EOS must be
  // known.
  void add_special_token(AddedToken token, std::vector<AddedToken>& tokens) {
    token.id = static_cast<int>(vocab_size());
    if (!ids_.emplace(token.content, token.id).second) return;
    added_text_.emplace(token.id, token.content);
    tokens.push_back(std::move(token));
  }

  // What one id may stand for at most: only where the text reaches the pieces as it is, and each
  // character becomes at least one id.
  void measure_pieces() {
    size_t bytes = 0;
    for (const Piece& piece : model_.pieces) {
      bytes += piece.type == PieceType::byte;
      longest_ = std::max(longest_, piece.text.size());
    }
    for (const auto& [id, text] : added_text_) longest_ = std::max(longest_, text.size());
    const bool is_bounded = model_.byte_fallback && bytes == 256 && !model_.has_charsmap &&
                            !model_.remove_extra_whitespaces && !strips_blanks_;
    if (!is_bounded) longest_ = 0;
  }

  // Where a GGUF file does not say what becomes of blanks and of characters beyond ASCII.
  void check_unsaid(std::string_view text) const {
    const auto is_blank = [](char c) { return c == ' '; };
    const bool has_blanks =
        !text.empty() && (is_blank(text.front()) || is_blank(text.back()) || text.find("  ") != text.npos);
    if (unsaid_blanks_ && has_blanks)
      refuse(name_,
             "tokenizer.ggml.remove_extra_whitespaces is missing, expected it for a text with blanks "
             "at an end or side by side",
             "give the model's Hugging Face folder, or token ids");
    const auto is_plain = [](char c) { return c >= 0x20 && c < 0x7F; };
    if (unsaid_characters_ && !std::all_of(text.begin(), text.end(), is_plain))
      refuse(name_,
             "the file does not say how characters are normalised, nor do its pieces show it, "
             "expected a text of printable ASCII characters",
             "give the model's Hugging Face folder, or token ids");
  }

  std::optional<int> special_id(const std::optional<std::string>& text, int by_default,
                                const std::string& file) const {
    if (!text) return by_default < 0 ? std::nullopt : std::optional<int>(by_default);
    const auto found = ids_.find(*text);
    if (found == ids_.end())
      refuse(file,
             "special token is " + quoted(*text) + ", expected one in the vocabulary of " + name_,
             "take both files from one model");
    return found->second;
  }

  bool is_normal(int id) const {
    return static_cast<size_t>(id) < model_.pieces.size() &&
           model_.pieces[id].type != PieceType::byte && added_text_.count(id) == 0;
  }

  std::string token_text(int id) const {
    const std::string text = piece(id);
    if (id == bos_) return "";
    if (added_text_.count(id) != 0) return text;
    switch (model_.pieces[id].type) {
      case PieceType::control:
        return "";
      case PieceType::unknown:
        return model_.unk_surface;
      case PieceType::byte:
        return std::string(1, static_cast<char>(byte_of_piece(text)));
      default:
        return with_spaces(text);
    }
  }

  static std::string with_spaces(std::string text) {
    for (size_t at = 0; (at = text.find(space_symbol, at)) != std::string::npos; ++at)
      text.replace(at, space_symbol.size(), " ");
    return text;
  }

  std::string name_;
  SentencepieceModel model_;
  std::unique_ptr<Processor> processor_;
  std::unique_ptr<Processor> after_added_;  // only if it differs
  std::unordered_map<std::string, int> ids_;
  std::map<int, std::string> added_text_;  // of the tokens that AddedTokens recognises
  AddedTokens added_;
  bool strips_prefix_ = true;
  bool adds_bos_ = true;
  bool strips_blanks_ = false;  // some added token takes white space with it
  bool unsaid_blanks_ = false, unsaid_characters_ = false;
  size_t longest_ = 0;  // bytes of text that one id may stand for; 0 if there is no bound
  std::optional<int> bos_, eos_;
};

}  // namespace

std::unique_ptr<Tokenizer> make_sentencepiece_tokenizer(std::string_view model,
                                                        const std::string& name,
                                                        const TokenizerSettings& settings) {
  return std::make_unique<SentencepieceTokenizer>(model, name, settings);
}

}  // namespace sinkref
