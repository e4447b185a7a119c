#include <algorithm>
#include <unordered_map>

#include "sinkref/error.h"
#include "tokenizer/bpe_tokenizer.h"
#include "tokenizer/factories.h"

namespace sinkref {

namespace {

using nlohmann::json;

constexpr const char* other_file = "get the model's own tokenizer.json, or give token ids";

// The file's name and the checks that every part of it needs.
class TokenizerJson {
 public:
  TokenizerJson(const json& root, const std::string& name, const TokenizerSettings& settings)
      : root_(object(root, "", name)), name_(name), settings_(settings) {}

  BpeModel read() {
    out_.name = name_;
    const json& model = object(member(root_, "model"), "model", name_);
    check_byte_level(model);
    read_model(model);
    read_added_tokens();
    read_pre_tokenizer(member(root_, "pre_tokenizer"));
    read_special_tokens();
    return std::move(out_);
  }

 private:
  [[noreturn]] void fail(const std::string& what, const std::string& remedy = other_file) const {
    refuse(name_, what, remedy);
  }

  static const json& object(const json& value, const std::string& key, const std::string& name) {
    if (value.is_object()) return value;
    refuse(name,
           (key.empty() ? "the file" : key) + " is " + value.type_name() + ", expected an object",
           other_file);
  }

  static const json& member(const json& parent, const char* key) {
    static const json null;
    const auto found = parent.find(key);
    return found == parent.end() ? null : *found;
  }

  std::string text(const json& parent, const char* key) const {
    const json& value = member(parent, key);
    if (value.is_null()) return "";
    if (!value.is_string())
      fail(std::string(key) + " is " + value.type_name() + ", expected a string");
    return value.get<std::string>();
  }

  bool boolean(const json& parent, const char* key, bool by_default) const {
    const json& value = member(parent, key);
    if (value.is_null()) return by_default;
    if (!value.is_boolean())
      fail(std::string(key) + " is " + value.type_name() + ", expected true or false");
    return value.get<bool>();
  }

  const json& array(const json& parent, const char* key) const {
    const json& value = member(parent, key);
    if (!value.is_array())
      fail(std::string(key) + " is " + value.type_name() + ", expected an array");
    return value;
  }

  int token_id(const json& value, const std::string& token) const {
    if (!value.is_number_integer() || value < 0 || value >= max_vocab_size)
      fail("token " + quoted(token) + " has id " + value.dump() + ", expected 0 to " +
           std::to_string(max_vocab_size - 1));
    return value.get<int>();
  }

  // LLaMA-1/2 and Mistral in tokenizer.json form: their reference is tokenizer.model.
  void check_byte_level(const json& model) const {
    const std::string type = text(model, "type");
    const std::string normalizer = member(root_, "normalizer").dump(-1, ' ', true, replace);
    const std::string cut = member(root_, "pre_tokenizer").dump(-1, ' ', true, replace);
    if (type == "Unigram" || boolean(model, "byte_fallback", false) ||
        cut.find("\"Metaspace\"") != std::string::npos ||
        normalizer.find("\\u2581") != std::string::npos)
      fail("is a sentencepiece tokenizer in JSON form, expected a byte-level BPE",
           "put the model's tokenizer.model beside it, which sinkref reads with sentencepiece "
           "itself");
    if (type != "BPE" && !(type.empty() && model.contains("merges")))
      fail("model.type is " + quoted(type) +
           ", expected \"BPE\" (byte-level), or sentencepiece's tokenizer.model beside it");
  }

  void read_model(const json& model) {
    for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"})
      if (!text(model, key).empty())
        fail("model." + std::string(key) + " is " + quoted(text(model, key)) +
             ", expected none as in byte-level BPE");
    const json& dropout = member(model, "dropout");
    if (!dropout.is_null() && dropout != 0)
      fail("model.dropout is " + dropout.dump() + ", expected null as ids would be random");
    out_.ignore_merges = boolean(model, "ignore_merges", false);
    const json& vocab = member(model, "vocab");
    for (const auto& [token, id] : object(vocab, "model.vocab", name_).items())
      put_token(token_id(id, token), token);
    for (const json& merge : array(model, "merges")) out_.merges.push_back(read_merge(merge));
  }

  std::pair<std::string_view, std::string_view> read_merge(const json& merge) const {
    if (merge.is_string()) return parse_merge(merge.get_ref<const std::string&>(), name_);
    if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string())
      return {merge[0].get_ref<const std::string&>(), merge[1].get_ref<const std::string&>()};
    fail("merge " + merge.dump(-1, ' ', true, replace).substr(0, 80) +
         ", expected \"a b\" or [\"a\", \"b\"]");
  }

  void put_token(int id, const std::string& token) {
    if (token.empty()) fail("token " + std::to_string(id) + " is empty, expected its text");
    if (static_cast<size_t>(id) >= out_.tokens.size()) out_.tokens.resize(id + 1);
    std::string& place = out_.tokens[id];
    if (!place.empty() && place != token)
      fail("id " + std::to_string(id) + " belongs to " + sinkref::quoted(place) + " and to " +
           quoted(token) + ", expected one token per id");
    place = token;
  }

  // As the tokenizers package numbers them, whatever ids the files say: a token of the vocabulary
  // keeps its id, any other gets the next.
  void read_added_tokens() {
    for (size_t id = 0; id < out_.tokens.size(); ++id)
      if (!out_.tokens[id].empty()) ids_.emplace(out_.tokens[id], static_cast<int>(id));
    out_.first_added_id = out_.tokens.size();
    next_id_ = static_cast<int>(ids_.size());
    if (!member(root_, "added_tokens").is_null())
      for (const json& token : array(root_, "added_tokens")) add_token(read_added_token(token));
    for (const AddedToken& token : settings_.added) add_token(token);
    for (const AddedToken& token : settings_.special) add_token(token);
  }

  AddedToken read_added_token(const json& token) const {
    object(token, "an entry of added_tokens", name_);
    AddedToken added;
    added.content = text(token, "content");
    added.id = token_id(member(token, "id"), added.content);
    added.lstrip = boolean(token, "lstrip", false);
    added.rstrip = boolean(token, "rstrip", false);
    added.normalized = boolean(token, "normalized", false);
    if (boolean(token, "single_word", false))
      fail("added token " + sinkref::quoted(added.content) +
           " is single_word, expected it not to be as in LLaMA and Mistral");
    return added;
  }

  void add_token(AddedToken token) {
    const auto is_known = [&](const AddedToken& known) { return known.content == token.content; };
    if (std::any_of(out_.added.begin(), out_.added.end(), is_known)) return;
    const auto found = ids_.find(token.content);
    const int stated = token.id;
    token.id = found == ids_.end() ? next_id_ : found->second;
    if (token.id >= next_id_) next_id_ = token.id + 1;
    if (token.id >= max_vocab_size || (found == ids_.end() && has_token(token.id)))
      fail("added token " + sinkref::quoted(token.content) + " would get id " +
           std::to_string(token.id) + ", expected one that no other token has");
    if (stated >= 0 && stated != token.id)
      out_.notes.push_back("Added token " + sinkref::quoted(token.content) + " has id " +
                       std::to_string(token.id) + " as in transformers, where " + name_ + " says " +
                       std::to_string(stated) + ".");
    put_token(token.id, token.content);
    ids_.emplace(token.content, token.id);
    out_.added.push_back(std::move(token));
  }

  bool has_token(int id) const {
    return static_cast<size_t>(id) < out_.tokens.size() && !out_.tokens[id].empty();
  }

  void read_pre_tokenizer(const json& step) {
    const std::string type = text(object(step, "pre_tokenizer", name_), "type");
    if (seen_byte_level_)
      fail("pre_tokenizer " + quoted(type) + " stands after ByteLevel, expected before it");
    if (type == "Sequence") {
      for (const json& each : array(step, "pretokenizers")) read_pre_tokenizer(each);
    } else if (type == "Split") {
      read_split(step);
    } else if (type == "Digits") {
      const bool individual = boolean(step, "individual_digits", false);
      out_.pre_tokenizer.add(individual ? pattern::digit : pattern::digits, name_);
    } else if (type == "ByteLevel") {
      read_byte_level(step);
    } else {
      fail("pre_tokenizer type " + quoted(type) +
           ", expected Sequence, Split, Digits or ByteLevel");
    }
    if (&step == &member(root_, "pre_tokenizer") && !seen_byte_level_)
      fail("pre_tokenizer has no ByteLevel step, expected one at its end");
  }

  void read_split(const json& step) {
    const std::string behavior = text(step, "behavior");
    if (behavior != "Isolated")
      fail("pre_tokenizer Split has behavior " + quoted(behavior) + ", expected \"Isolated\"");
    const json& pattern = object(member(step, "pattern"), "pattern of Split", name_);
    if (!pattern.contains("Regex")) fail("pattern of Split has no \"Regex\", expected one");
    out_.pre_tokenizer.add(text(pattern, "Regex"), name_);
  }

  void read_byte_level(const json& step) {
    seen_byte_level_ = true;
    if (boolean(step, "add_prefix_space", true))
      fail("pre_tokenizer ByteLevel has add_prefix_space true, expected false as in Llama-3");
    if (boolean(step, "use_regex", true)) out_.pre_tokenizer.add(pattern::gpt2, name_);
  }

  void read_special_tokens() {
    check_normalizer(member(root_, "normalizer"));
    read_unknown_token(root_["model"]);
    const json& post = member(root_, "post_processor");
    if (!post.is_null()) read_post_processor(post);
    if (settings_.bos_token && !out_.adds_bos) out_.bos = id_of(*settings_.bos_token, "bos_token");
    if (settings_.eos_token) out_.eos = id_of(*settings_.eos_token, "eos_token");
    if (settings_.add_bos.value_or(out_.adds_bos) != out_.adds_bos)
      out_.notes.push_back("A text " + std::string(out_.adds_bos ? "gets" : "gets no") +
                       " BOS, as the post_processor of " + name_ + " says; transformers passes over "
                       "add_bos_token of " + settings_.file + " beside it.");
  }

  void read_unknown_token(const json& model) {
    const std::string unknown = text(model, "unk_token");
    if (unknown.empty()) return;
    out_.unknown = id_of(unknown, "unk_token");
    if (boolean(model, "fuse_unk", false))
      fail("model.fuse_unk is true with an unk_token, expected false as in byte-level BPE");
  }

  void check_normalizer(const json& normalizer) const {
    if (normalizer.is_null()) return;
    const std::string type = text(object(normalizer, "normalizer", name_), "type");
    if (type != "Sequence" || !array(normalizer, "normalizers").empty())
      fail("normalizer type " + quoted(type) + ", expected none as in Llama-3");
  }

  void read_post_processor(const json& post) {
    const std::string type = text(object(post, "post_processor", name_), "type");
    if (type == "Sequence")
      for (const json& each : array(post, "processors")) read_post_processor(each);
    else if (type == "TemplateProcessing")
      read_template(post);
    else if (type != "ByteLevel")  // which changes offsets only
      fail("post_processor type " + quoted(type) +
           ", expected TemplateProcessing, ByteLevel or a Sequence of them");
  }

  // "single" is [BOS, A] or [A].
  void read_template(const json& post) {
    const json& single = array(post, "single");
    auto is = [&](size_t i, const char* key) {
      return single[i].is_object() && single[i].contains(key);
    };
    const size_t size = single.size();
    if (size == 1 && is(0, "Sequence")) return;
    if (size != 2 || !is(0, "SpecialToken") || !is(1, "Sequence"))
      fail("post_processor puts other tokens around a text, expected only one BOS before it");
    const json& special = object(single[0]["SpecialToken"], "SpecialToken", name_);
    out_.bos = template_id(post, text(special, "id"));
    out_.adds_bos = true;
  }

  // The template's own table says which ids a name stands for.
  int template_id(const json& post, const std::string& token) const {
    const json& table = object(member(post, "special_tokens"), "special_tokens", name_);
    const json& entry = member(table, token.c_str());
    if (!entry.is_object())
      fail("post_processor names token " + quoted(token) + ", expected one of its special_tokens");
    const json& ids = array(entry, "ids");
    if (ids.size() != 1)
      fail("post_processor puts " + std::to_string(ids.size()) + " ids for token " +
           quoted(token) + ", expected one BOS");
    const int id = token_id(ids[0], token);
    if (!has_token(id))
      fail("post_processor puts id " + std::to_string(id) + ", expected one of the vocabulary");
    return id;
  }

  int id_of(const std::string& token, const char* what) const {
    const auto found = ids_.find(token);
    if (found == ids_.end())
      fail(std::string(what) + " names token " + quoted(token) +
           ", expected one of the vocabulary");
    return found->second;
  }

  static constexpr auto replace = json::error_handler_t::replace;

  const json& root_;
  const std::string& name_;
  const TokenizerSettings& settings_;
  BpeModel out_;
  std::unordered_map<std::string, int> ids_;
  int next_id_ = 0;  // that an added token gets
  bool seen_byte_level_ = false;
};

}  // namespace

std::unique_ptr<Tokenizer> make_bpe_tokenizer(const json& root, const std::string& name,
                                              const TokenizerSettings& settings) {
  return make_bpe_tokenizer(TokenizerJson(root, name, settings).read());
}

}  // namespace sinkref
