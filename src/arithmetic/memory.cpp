#include <sys/mman.h>

#include <new>

#include "sinkref/tensor.h"

namespace sinkref {

namespace {

constexpr size_t huge_page = size_t{2} << 20;
constexpr std::align_val_t line{64}, huge{huge_page};

bool is_large(size_t bytes) { return bytes >= 2 * huge_page; }

}  // namespace

void* allocate_lines(size_t bytes) {
  if (!is_large(bytes)) return ::operator new(bytes, line);
  const size_t whole = (bytes + huge_page - 1) / huge_page * huge_page;
  void* memory = ::operator new(whole, huge);
  ::madvise(memory, whole, MADV_HUGEPAGE);  // a wish: without huge pages all works as before
  return memory;
}

void free_lines(void* memory, size_t bytes) {
  if (is_large(bytes))
    ::operator delete(memory, huge);
  else
    ::operator delete(memory, line);
}

}  // namespace sinkref
