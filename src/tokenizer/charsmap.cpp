#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "tokenizer/sentencepiece_model.h"
#include "tokenizer/utf8.h"

namespace sinkref {

namespace {

// The table of normalisation rules: a uint32 size, a Darts double array of that size, and the
// NUL-terminated replacements its values point to. libsentencepiece follows both unchecked, and
// keeps at most 32 rules that start at one place of the text.
class Charsmap {
 public:
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

}  // namespace

const char* charsmap_problem(std::string_view table) {
  return Charsmap().problem(table);
}

}  // namespace sinkref
