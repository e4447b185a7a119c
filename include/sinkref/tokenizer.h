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

  /// Ids of `text`, with BOS first as the policy says. InputError if it is not UTF-8; NUL is a
  /// character like others. Text of special tokens: byte-level BPE takes "<|eot_id|>" as that
  /// token, as Hugging Face does; sentencepiece takes "<s>", "</s>", "<unk>" as ordinary text, as
  /// Meta's code does, and other control or added tokens ("[INST]", "<|im_start|>") as those
  /// tokens. Bytes without a token (SmolLM2: some control characters) are left out, as by HF.
  /// InputError for an id that has no row in the model's embedding.
  std::vector<int> encode(std::string_view text, BosPolicy bos = BosPolicy::automatic) const;
  /// Bytes of the tokens put together; may end inside a UTF-8 character. A first BOS that the
  /// tokenizer adds by itself is not printed, nor are sentencepiece's "<s>" and "</s>".
  virtual std::string decode(std::span<const int> ids) const = 0;
  /// One vocabulary entry as it stands in the file ("▁the", "Ġthe").
  virtual std::string piece(int id) const = 0;
  virtual size_t vocab_size() const = 0;
  virtual std::optional<int> bos_id() const = 0;
  virtual std::optional<int> eos_id() const = 0;
  virtual bool adds_bos() const = 0;
  /// "sentencepiece BPE", "byte-level BPE (llama3)", …
  virtual std::string description() const = 0;
  /// At least this many ids will `text` become: told from its length, without encoding it.
  virtual size_t least_ids(std::string_view text) const = 0;
  /// What a reader of results should know: what the file cannot say. One sentence each.
  const std::vector<std::string>& notes() const { return notes_; }

 protected:
  virtual std::vector<int> encode_without_bos(std::string_view text) const = 0;
  /// Ids from here on are tokens added to the vocabulary, which a model may lack.
  virtual size_t first_added_id() const = 0;

  std::vector<std::string> notes_;

 private:
  void check_rows(std::span<const int> ids) const;

  std::optional<size_t> rows_;  ///< of the embedding, where the checkpoint says
  std::string name_;            ///< the checkpoint's, for messages
};

}  // namespace sinkref
