#include "model/work.h"

#include <algorithm>

namespace sinkref {

double prefill_work(const ModelConfig& c, size_t tokens, size_t sequences, size_t before, size_t blocks,
                    size_t logits) {
  const double d = double(c.hidden_size), m = double(c.intermediate_size);
  const double q = double(c.heads * c.head_dim), kv = double(c.kv_heads * c.head_dim);
  const double weights = 2 * d * q + 2 * d * kv + 3 * d * m;
  const double rows = double(tokens * sequences);
  const double keys = double(before) + double(tokens) / 2;
  const double of_block = (rows + pass_overhead) * weights + 2 * rows * keys * q;
  return double(std::min(blocks, c.layers)) * of_block + double(logits) * d * double(c.vocab_size);
}

double decode_work(const ModelConfig& c, size_t steps, size_t sequences, size_t before) {
  return double(steps) * (prefill_work(c, 1, sequences, before, SIZE_MAX, sequences) +
                          pass_overhead * double(c.hidden_size * c.vocab_size));
}

}  // namespace sinkref
