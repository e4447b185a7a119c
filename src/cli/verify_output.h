#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <string>

#include "cli/verify_proof.h"
#include "sinkref/verify.h"

namespace sinkref::cli {

/// What the three forms of verify's result share.
struct VerifyReport {
  std::string reference, candidate;         ///< file names
  VerifyResult result;
  std::optional<std::vector<RowProof>> proofs;  ///< where they were asked for
  bool exact = false;                       ///< bits were compared
  std::map<std::string, double> hf_noise;   ///< by tensor, from a golden of the same tokens
  std::map<std::string, std::string> provenance;
};

nlohmann::ordered_json verify_json(const VerifyReport& report);
void print_verify(const VerifyReport& report);
std::string verify_html(const VerifyReport& report);

/// "[0,3,17]"
std::string index_text(const std::vector<size_t>& index);

}  // namespace sinkref::cli
