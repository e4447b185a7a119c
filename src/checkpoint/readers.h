#pragma once

#include <map>
#include <optional>
#include <span>
#include <string>

#include "base/load.h"
#include "base/mapped_file.h"
#include "sinkref/checkpoint.h"

namespace sinkref {

/// Fill an opened Checkpoint's tensors (and metadata) from its path.
void read_safetensors_folder(Checkpoint& checkpoint);
void read_gguf(Checkpoint& checkpoint);

/// The tensors of one .safetensors file, by name. Throws InputError if it breaks the format.
std::map<std::string, StoredTensor> read_safetensors(const MappedFile& file);

/// The product of all sizes, or nothing if it overflows, even where a later size is 0:
/// a product that wraps to 0 would pass every check on offsets.
inline std::optional<uint64_t> product(std::span<const uint64_t> sizes) {
  uint64_t total = 1;
  bool has_zero = false;
  for (const uint64_t size : sizes) {
    has_zero |= size == 0;
    if (size != 0 && __builtin_mul_overflow(total, size, &total)) return std::nullopt;
  }
  return has_zero ? 0 : total;
}

/// Whether there is anything of this name, be it a dangling link. Unlike std::filesystem::exists
/// it never throws (loops of links, forbidden folders); opening the file then says what is wrong.
bool is_present(const std::filesystem::path& path);

/// Gives pages that nothing uses any more back to the system, before the weights take theirs.
void return_freed_memory();

/// "[32, 64]"
std::string shape_text(std::span<const uint64_t> shape);

}  // namespace sinkref
