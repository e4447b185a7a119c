#pragma once

#include <functional>

namespace sinkref {

struct Certificate;
struct CertifyCost;
struct CertifyRequest;

/// By what a study has its decisive comparisons proved; empty if that was not asked for. The library measures without
/// Arb, so that the program hands this in.
struct Prover {
  std::function<CertifyCost(const CertifyRequest&)> cost;
  std::function<Certificate(const CertifyRequest&)> certify;

  explicit operator bool() const { return certify != nullptr; }
};

}  // namespace sinkref
