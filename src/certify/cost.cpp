#include "certify/cost.h"

#include <algorithm>
#include <cmath>

#include "base/threads.h"
#include "certify/claims.h"

namespace sinkref {

namespace {

constexpr double bits_per_block = 20.5;  // of trained models: 22 in the first blocks, 19 in the last

// Seconds of one core of a server of 2024 with AVX-512, found by running SmolLM2-135M with 1 to 512 tokens; machines
// differ by a factor of three.
constexpr double per_weight = 12e-9;         // to read and cut, once for each group of tokens
constexpr double per_product_bit = 1.9e-12;  // a weight, a token and a bit of the middles
constexpr double per_pair_bit = 16e-9;       // a query, a key, a head and a bit
constexpr double per_value = 0.35e-6;        // an activation: its carries, its functions, its rounding
constexpr double tokens_of_group = 64;

/// Of one run as far as `hooks` need it, on one core.
CertifyCost cost_of_run(const ModelConfig& config, const CertifyRequest& request, const std::vector<Hook>& hooks) {
  if (hooks.empty()) return {0, 0};
  const auto tokens = static_cast<double>(request.tokens.size());
  const auto d = static_cast<double>(config.hidden_size), m = static_cast<double>(config.intermediate_size);
  const auto q = static_cast<double>(config.heads * config.head_dim);
  const auto kv = static_cast<double>(config.kv_heads * config.head_dim);
  const size_t blocks = blocks_needed(hooks, config.layers);
  const auto depth = static_cast<double>(blocks);
  const bool logits = std::find(hooks.begin(), hooks.end(), Hook{HookPoint::Logits, 0}) != hooks.end();
  const double vocabulary = logits ? static_cast<double>(config.vocab_size) : 0;
  const double of_block = d * (2 * q + 2 * kv) + 3 * d * m;
  const auto bits = static_cast<double>(request.bits.value_or(static_cast<size_t>(bits_needed(blocks))));
  // Over the blocks the bits fall to a few dozen; the head has those alone.
  const double middle_bits = bits / 2 + bits_at_the_end;
  const double pairs = depth * static_cast<double>(config.heads) * tokens * tokens / 2;
  const double read =
      depth * of_block * std::max(1.0, tokens / tokens_of_group) + vocabulary * d * std::ceil(tokens / 8);
  const double product_bits = tokens * (depth * of_block * middle_bits + vocabulary * d * 2 * bits_at_the_end);
  const double values = tokens * (depth * (5 * d + 4 * q + 6 * kv + 4 * m) + vocabulary);
  const double seconds =
      read * per_weight + product_bits * per_product_bit + pairs * middle_bits * per_pair_bit + values * per_value;
  // The matrices of balls that are there at a time, one head's scores, and the buffers of the products.
  const double ball = 64 + bits / 8;
  const double balls = tokens * (4 * m + 6 * d + 4 * q) * ball + 3 * tokens * tokens * ball + 8 * vocabulary * 2 * 64;
  return {seconds, balls + 200e6};
}

/// Bytes of what is kept of the tensors asked for.
double stored_bytes(const ModelConfig& config, const CertifyRequest& request) {
  double bytes = 0;
  const auto tokens = static_cast<double>(request.tokens.size());
  const double of_value = 4 * (request.digits > 0 ? 1 + static_cast<double>(request.digits) / 2 : 1);
  for (const Hook hook : request.hooks) {
    double width = is_attention(hook.point) ? tokens : 1;
    for (const size_t extent : hook_shape(hook.point, config)) width *= static_cast<double>(extent);
    bytes += of_value * width * tokens;
  }
  return bytes;
}

}  // namespace

long bits_needed(size_t blocks) {
  return bits_at_the_end + std::lround(bits_per_block * static_cast<double>(blocks));
}

std::vector<Hook> hooks_needed(const CertifyRequest& request, const Claims& claims) {
  std::vector<Hook> hooks = claims.hooks(false);
  hooks.insert(hooks.end(), request.hooks.begin(), request.hooks.end());
  for (const RowPlace& row : request.rows) hooks.push_back(row.hook);
  return hooks;
}

CertifyCost certify_cost(const ModelConfig& config, const CertifyRequest& request) {
  const Claims claims(request.claims, request.claims_file, config, request.tokens.size());
  const CertifyCost asked = cost_of_run(config, request, hooks_needed(request, claims));
  const CertifyCost original = cost_of_run(config, request, claims.hooks(true));
  return {asked.processor_seconds + original.processor_seconds,
          std::max(asked.bytes, original.bytes) + stored_bytes(config, request)};
}

double CertifyCost::seconds() const { return processor_seconds / static_cast<double>(thread_count()); }

}  // namespace sinkref
