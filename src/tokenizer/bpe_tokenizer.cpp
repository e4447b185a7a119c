#include "tokenizer/bpe_tokenizer.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <queue>
#include <unordered_map>
#include <unordered_set>

#include "sinkref/error.h"
#include "tokenizer/factories.h"
#include "tokenizer/utf8.h"

namespace sinkref {

namespace {

// GPT-2's alphabet: printable Latin-1 bytes stand for themselves, the others follow U+0100.
std::array<char32_t, 256> make_alphabet() {
  std::array<char32_t, 256> characters{};
  char32_t next = 0x100;
  for (char32_t b = 0; b < 256; ++b) {
    const bool printable = (b > 0x20 && b < 0x7F) || (b > 0xA0 && b != 0xAD);
    characters[b] = printable ? b : next++;
  }
  return characters;
}

const std::array<char32_t, 256>& alphabet() {
  static const auto characters = make_alphabet();
  return characters;
}

std::string to_alphabet(std::string_view bytes) {
  std::string out;
  for (char byte : bytes) append_utf8(out, alphabet()[static_cast<unsigned char>(byte)]);
  return out;
}

// The byte that a character stands for, or -1.
int byte_of(char32_t character) {
  static const auto bytes = [] {
    std::array<int, 0x200> table;
    table.fill(-1);
    for (int b = 0; b < 256; ++b) table[alphabet()[b]] = b;
    return table;
  }();
  return character < bytes.size() ? bytes[character] : -1;
}

// A token with a character outside the alphabet stands for its own text, as in Hugging Face.
std::string from_alphabet(const std::string& token) {
  std::string bytes;
  for (size_t at = 0; at < token.size(); at += utf8_length(token[at])) {
    const int byte = byte_of(first_character(std::string_view(token).substr(at)));
    if (byte < 0) return token;
    bytes += static_cast<char>(byte);
  }
  return bytes;
}

struct Merge {
  int rank = 0;
  int id = 0;
};

uint64_t pair_key(int left, int right) {
  return uint64_t(uint32_t(left)) << 32 | uint32_t(right);
}

class BpeTokenizer : public Tokenizer {
 public:
  explicit BpeTokenizer(BpeModel model) : model_(std::move(model)), added_(model_.added) {
    notes_ = std::move(model_.notes);
    index_tokens();
    index_merges();
    for (int b = 0; b < 256; ++b) {
      byte_ids_[b] = id_of(to_alphabet(std::string(1, static_cast<char>(b))));
      if (byte_ids_[b] < 0) byte_ids_[b] = model_.unknown.value_or(-1);
    }
    for (const AddedToken& token : model_.added) added_ids_.insert(token.id);
    measure_tokens();
    if (!model_.ignore_merges) ids_.clear();  // nothing asks for whole pieces
  }

  std::string decode(std::span<const int> ids) const override {
    std::string text;
    for (size_t i = 0; i < ids.size(); ++i) {
      check_id(ids[i]);
      const bool own_bos = i == 0 && model_.adds_bos && ids[i] == model_.bos;
      const std::string& token = model_.tokens[ids[i]];
      if (!own_bos) text += added_ids_.count(ids[i]) ? token : from_alphabet(token);
    }
    return text;
  }

  std::string piece(int id) const override {
    check_id(id);
    return model_.tokens[id];
  }
  size_t vocab_size() const override { return model_.tokens.size(); }
  std::optional<int> bos_id() const override { return model_.bos; }
  std::optional<int> eos_id() const override { return model_.eos; }
  bool adds_bos() const override { return model_.adds_bos; }
  size_t first_added_id() const override { return model_.first_added_id; }
  size_t least_ids(std::string_view text) const override {
    if (longest_ == 0) return 0;
    const size_t bytes = static_cast<size_t>(std::count_if(text.begin(), text.end(), [&](char byte) {
      return byte_ids_[static_cast<unsigned char>(byte)] >= 0;
    }));
    return (bytes + longest_ - 1) / longest_;
  }
  std::string description() const override {
    return "byte-level BPE" + (model_.flavour.empty() ? "" : " (" + model_.flavour + ")");
  }

 protected:
  std::vector<int> encode_without_bos(std::string_view text) const override {
    std::vector<int> ids;
    for (const Segment& segment : added_.split(text)) {
      if (segment.id >= 0)
        ids.push_back(segment.id);
      else
        for (std::string_view piece : model_.pre_tokenizer.split(segment.text))
          encode_piece(piece, ids);
    }
    return ids;
  }

 private:
  // Symbols form a linked list, so that a merge costs no copying.
  struct Symbol {
    int id;
    int previous, next;  // -1 at the ends
  };
  struct Candidate {
    int rank, position, id;
    bool operator>(const Candidate& other) const {
      return rank != other.rank ? rank > other.rank : position > other.position;
    }
  };
  using Queue = std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>>;

  void index_tokens() {
    const auto& tokens = model_.tokens;
    ids_.reserve(tokens.size());
    for (size_t id = 0; id < tokens.size(); ++id) {
      if (!is_utf8(tokens[id]))
        refuse(model_.name,
               "token " + std::to_string(id) + " is " + quoted(tokens[id]) + ", expected UTF-8");
      if (tokens[id].empty()) continue;
      if (!ids_.emplace(tokens[id], static_cast<int>(id)).second)
        refuse(model_.name,
               "token " + quoted(tokens[id]) + " stands twice in the vocabulary, expected once");
    }
  }

  // An added token that takes white space with it has no longest text.
  void measure_tokens() {
    for (const std::string& token : model_.tokens) longest_ = std::max(longest_, token.size());
    for (const AddedToken& token : model_.added)
      if (token.lstrip || token.rstrip) longest_ = 0;
  }

  void index_merges() {
    merges_.reserve(model_.merges.size());
    int rank = 0;
    for (const auto& [left, right] : model_.merges) {
      const Merge merge{rank++, merge_part(std::string(left).append(right), rank)};
      const uint64_t key = pair_key(merge_part(left, rank), merge_part(right, rank));
      if (!merges_.emplace(key, merge).second)
        refuse(model_.name, "merge " + std::to_string(merge.rank) + " " +
                                quoted(std::string(left).append(" ").append(right)) +
                                " stands twice, expected once");
    }
    model_.merges = {};
  }

  int merge_part(std::string_view token, int number) const {
    const int id = id_of(token);
    if (id < 0)
      refuse(model_.name, "merge " + std::to_string(number) + " needs token " +
                              quoted(std::string(token)) + ", expected one of the vocabulary");
    return id;
  }

  int id_of(std::string_view token) const {
    const auto found = ids_.find(token);
    return found == ids_.end() ? -1 : found->second;
  }

  void check_id(int id) const {
    if (id < 0 || static_cast<size_t>(id) >= model_.tokens.size() || model_.tokens[id].empty())
      refuse_token(model_.name, id, vocab_size());
  }

  void encode_piece(std::string_view piece, std::vector<int>& ids) const {
    if (model_.ignore_merges) {
      const int whole = id_of(to_alphabet(piece));
      if (whole >= 0) return ids.push_back(whole);
    }
    std::vector<Symbol> symbols = first_symbols(piece);
    merge_all(symbols);
    for (int at = symbols.empty() ? -1 : 0; at >= 0; at = symbols[at].next)
      ids.push_back(symbols[at].id);
  }

  // A byte with neither a token nor an unknown token is left out, as Hugging Face and llama.cpp do.
  std::vector<Symbol> first_symbols(std::string_view piece) const {
    std::vector<Symbol> symbols;
    symbols.reserve(piece.size());
    for (char byte : piece) {
      const int id = byte_ids_[static_cast<unsigned char>(byte)];
      const int at = static_cast<int>(symbols.size());
      if (id >= 0) symbols.push_back({id, at - 1, at + 1});
    }
    if (!symbols.empty()) symbols.back().next = -1;
    return symbols;
  }

  // Always the lowest rank, of equal ones the leftmost. O(n log n): a candidate whose symbols
  // have changed meanwhile is recognised when it comes up, not searched for before.
  void merge_all(std::vector<Symbol>& symbols) const {
    Queue queue;
    for (int at = 0; at + 1 < static_cast<int>(symbols.size()); ++at) propose(symbols, at, queue);
    while (!queue.empty()) {
      const Candidate best = queue.top();
      queue.pop();
      const Merge* merge = merge_at(symbols, best.position);
      if (merge == nullptr || merge->rank != best.rank) continue;
      Symbol& left = symbols[best.position];
      Symbol& right = symbols[left.next];
      left.id = best.id;
      left.next = right.next;
      right.id = -1;
      if (left.next >= 0) symbols[left.next].previous = best.position;
      if (left.previous >= 0) propose(symbols, left.previous, queue);
      propose(symbols, best.position, queue);
    }
  }

  const Merge* merge_at(const std::vector<Symbol>& symbols, int at) const {
    const Symbol& left = symbols[at];
    if (left.id < 0 || left.next < 0) return nullptr;
    const auto found = merges_.find(pair_key(left.id, symbols[left.next].id));
    return found == merges_.end() ? nullptr : &found->second;
  }

  void propose(const std::vector<Symbol>& symbols, int at, Queue& queue) const {
    if (const Merge* merge = merge_at(symbols, at)) queue.push({merge->rank, at, merge->id});
  }

  BpeModel model_;
  AddedTokens added_;
  std::unordered_set<int> added_ids_;
  std::unordered_map<std::string_view, int> ids_;  // views of model_.tokens
  std::unordered_map<uint64_t, Merge> merges_;
  std::array<int, 256> byte_ids_{};
  size_t longest_ = 0;  // bytes of text that one token may stand for; 0 if there is no bound
};

}  // namespace

std::pair<std::string_view, std::string_view> parse_merge(std::string_view text,
                                                          const std::string& name) {
  const size_t space = text.find(' ');
  if (space == text.npos || space == 0 || space + 1 == text.size() ||
      text.find(' ', space + 1) != text.npos)
    refuse(name, "merge " + quoted(std::string(text)) +
                     ", expected two tokens with one space between them");
  return {text.substr(0, space), text.substr(space + 1)};
}

std::unique_ptr<Tokenizer> make_bpe_tokenizer(BpeModel model) {
  return std::make_unique<BpeTokenizer>(std::move(model));
}

}  // namespace sinkref
