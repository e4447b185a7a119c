#include <algorithm>
#include <array>
#include <charconv>
#include <map>

#include "base/json_file.h"
#include "sinkref/error.h"
#include "tokenizer/factories.h"

namespace sinkref {

namespace {

using nlohmann::json;
namespace fs = std::filesystem;

class SettingsReader {
 public:
  explicit SettingsReader(const fs::path& folder) : folder_(folder) {}

  TokenizerSettings read() {
    json config = read_object("tokenizer_config.json");
    // As in transformers: the map is read only where the tokens are not listed, and then wins.
    if (config.is_null() || !config.contains("added_tokens_decoder"))
      if (const json map = read_object("special_tokens_map.json"); !map.is_null()) {
        if (config.is_null()) config = json::object();
        for (const auto& [key, value] : map.items()) config[key] = value;
      }
    file_ = out_.file = (folder_ / "tokenizer_config.json").string();
    if (!config.is_null()) read_config(config);
    if (out_.added.empty()) read_added_tokens_json();
    if (out_.added.empty()) read_tokenizer_json();
    return std::move(out_);
  }

 private:
  [[noreturn]] void fail(const std::string& what,
                         const std::string& remedy = "correct the file or get it again") const {
    refuse(file_, what, remedy);
  }

  // Null if there is no such file.
  json read_object(const char* file) {
    const fs::path path = folder_ / file;
    if (!fs::exists(path)) return nullptr;
    file_ = path.string();
    json value = read_json_file(path);
    if (!value.is_object())
      fail(std::string("is ") + value.type_name() + ", expected a JSON object");
    return value;
  }

  std::optional<bool> flag(const json& parent, const char* key) const {
    const auto found = parent.find(key);
    if (found == parent.end() || found->is_null()) return {};
    if (!found->is_boolean())
      fail(std::string(key) + " is " + found->type_name() + ", expected true or false");
    return found->get<bool>();
  }

  // "<s>" or {"content": "<s>", …}; LLaMA's first conversions wrote "" for none.
  void read_token(const json& parent, const char* key, std::optional<std::string>& out) const {
    const auto found = parent.find(key);
    if (found == parent.end() || found->is_null()) return;
    const json& text = found->is_object() ? found->value("content", json()) : *found;
    if (!text.is_string())
      fail(std::string(key) + " is of another kind, expected a string or an object with content");
    if (!text.get<std::string>().empty()) out = text.get<std::string>();
  }

  void read_config(const json& config) {
    out_.add_bos = flag(config, "add_bos_token");
    // Beside a tokenizer.json, transformers passes over it.
    if (flag(config, "add_eos_token").value_or(false) && fs::exists(folder_ / "tokenizer.model"))
      fail("add_eos_token is true, expected false as sinkref appends no token", "set it to false");
    read_token(config, "bos_token", out_.bos_token);
    read_token(config, "eos_token", out_.eos_token);
    out_.add_prefix_space = flag(config, "add_prefix_space").value_or(true);
    out_.prefix_after_added_token = flag(config, "legacy").value_or(true);
    read_added_tokens_decoder(config);
    read_special_tokens(config);
  }

  void read_added_tokens_decoder(const json& config) {
    const auto added = config.find("added_tokens_decoder");
    if (added == config.end()) return;
    if (!added->is_object())
      fail("added_tokens_decoder is of another kind, expected an object of id: token");
    std::map<int, const json*> in_order;
    for (const auto& [id, token] : added->items()) {
      const int value = number(id);
      if (!in_order.emplace(value, &token).second)
        fail("id " + std::to_string(value) +
             " stands twice in added_tokens_decoder, expected one token per id");
    }
    for (const auto& [id, token] : in_order) add(*token, id);
  }

  // All that transformers makes special tokens of, in its order.
  void read_special_tokens(const json& config) {
    constexpr std::array<const char*, 7> names = {"bos_token", "eos_token", "unk_token", "sep_token",
                                                  "pad_token", "cls_token", "mask_token"};
    for (const char* name : names)
      if (config.contains(name)) add_special(config[name], name);
    for (const auto& [key, value] : config.items())
      if (key.ends_with("_token") && std::find(names.begin(), names.end(), key) == names.end() &&
          (value.is_string() || value.is_object()))
        add_special(value, key);
    const char* extra = config.contains("extra_special_tokens") && !config["extra_special_tokens"].empty()
                            ? "extra_special_tokens"
                            : "additional_special_tokens";
    if (!config.contains(extra) || config[extra].is_null()) return;
    if (!config[extra].is_array() && !config[extra].is_object())
      fail(std::string(extra) + " is of another kind, expected a list of tokens");
    for (const json& token : config[extra]) add_special(token, extra);
  }

  void add_special(const json& token, const std::string& key) {
    if (token.is_null()) return;
    const json& text = token.is_object() && token.contains("content") ? token["content"] : token;
    if (!text.is_string())
      fail(key + " is of another kind, expected a string or an object with content");
    if (text.get_ref<const std::string&>().empty()) return;
    AddedToken special{-1, text.get<std::string>()};
    if (token.is_object()) {
      special.lstrip = flag(token, "lstrip").value_or(false);
      special.rstrip = flag(token, "rstrip").value_or(false);
      special.normalized = flag(token, "normalized").value_or(false);
      if (flag(token, "single_word").value_or(false)) fail_single_word(special.content);
    }
    out_.special.push_back(std::move(special));
  }

  [[noreturn]] void fail_single_word(const std::string& content) const {
    fail("added token " + sinkref::quoted(content) +
         " is single_word, expected it not to be as in LLaMA and Mistral");
  }

  int number(const std::string& text) const {
    int value = -1;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size())
      fail("added_tokens_decoder has key " + quoted(text) + ", expected a token id");
    return value;
  }

  void add(const json& token, int id) {
    if (!token.is_object() || !token.contains("content") || !token["content"].is_string())
      fail("added token " + std::to_string(id) +
           " is of another kind, expected an object with content");
    AddedToken added{id, token["content"].get<std::string>()};
    added.lstrip = flag(token, "lstrip").value_or(false);
    added.rstrip = flag(token, "rstrip").value_or(false);
    added.normalized = flag(token, "normalized").value_or(false);
    if (flag(token, "single_word").value_or(false)) fail_single_word(added.content);
    add(std::move(added));
  }

  void add(AddedToken token) {
    if (token.content.empty())
      fail("added token " + std::to_string(token.id) + " is empty, expected its text");
    if (token.id < 0 || token.id >= max_vocab_size)
      fail("added token " + sinkref::quoted(token.content) + " has id " + std::to_string(token.id) +
           ", expected 0 to " + std::to_string(max_vocab_size - 1));
    for (const AddedToken& known : out_.added)
      if (known.id == token.id)
        fail("id " + std::to_string(token.id) + " belongs to " + sinkref::quoted(known.content) +
             " and to " + sinkref::quoted(token.content) + ", expected one token per id");
    out_.added.push_back(std::move(token));
  }

  void read_added_tokens_json() {
    const json tokens = read_object("added_tokens.json");
    if (tokens.is_null()) return;
    for (const auto& [content, id] : tokens.items()) add(AddedToken{as_id(id), content});
  }

  // Only a sentencepiece folder needs these from here; a byte-level BPE reads them itself.
  void read_tokenizer_json() {
    if (!fs::exists(folder_ / "tokenizer.model")) return;
    const json tokenizer = read_object("tokenizer.json");
    if (tokenizer.is_null()) return;
    const auto added = tokenizer.find("added_tokens");
    if (added == tokenizer.end() || added->is_null()) return;
    if (!added->is_array()) fail("added_tokens is of another kind, expected an array");
    for (const json& token : *added)
      add(token, as_id(token.is_object() ? token.value("id", json()) : json()));
  }

  int as_id(const json& id) const {
    return id.is_number_integer() && id >= 0 && id < max_vocab_size ? id.get<int>() : -1;
  }

  const fs::path folder_;
  std::string file_;
  TokenizerSettings out_;
};

}  // namespace

TokenizerSettings read_tokenizer_settings(const fs::path& folder) {
  return SettingsReader(folder).read();
}

}  // namespace sinkref
