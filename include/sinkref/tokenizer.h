#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "sinkref/checkpoint.h"

namespace sinkref {

/// `automatic` does what the checkpoint says (LLaMA and Mistral: yes; SmolLM2: no).
enum class BosPolicy { automatic, on, off };

/// Text to token ids and back. References (see tests/tokenizer_test.cpp): sentencepiece itself for
/// tokenizer.model, tiktoken for Llama-3, llama.cpp's `smollm` pre-tokenizer for SmolLM2.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  /// From tokenizer.model or tokenizer.json in a folder (byte-level BPE only from tokenizer.json),
  /// or from GGUF metadata. Throws InputError when there is none or it is malformed.
  static std::unique_ptr<Tokenizer> open(const Checkpoint& checkpoint);

  /// Ids of `text` (UTF-8), special-token text included, with BOS first as the policy says.
  std::vector<int> encode(std::string_view text, BosPolicy bos = BosPolicy::automatic) const;
  /// Bytes of the tokens put together; may end inside a UTF-8 character. BOS is not printed.
  virtual std::string decode(std::span<const int> ids) const = 0;
  /// One vocabulary entry as it stands in the file ("▁the", "Ġthe").
  virtual std::string piece(int id) const = 0;
  virtual size_t vocab_size() const = 0;
  virtual std::optional<int> bos_id() const = 0;
  virtual std::optional<int> eos_id() const = 0;
  virtual bool adds_bos() const = 0;
  /// "sentencepiece BPE", "byte-level BPE (llama3)", …
  virtual std::string description() const = 0;

 protected:
  virtual std::vector<int> encode_without_bos(std::string_view text) const = 0;
};

}  // namespace sinkref
