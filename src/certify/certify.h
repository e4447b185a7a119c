#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "certify/proof.h"
#include "certify/request.h"
#include "sinkref/hooks.h"
#include "sinkref/model.h"

namespace sinkref {

/// One row of a tensor, for those who want no more: of scores and pattern one query's.
struct RowPlace {
  Hook hook;
  size_t head, position;
};

/// What is to be certified, and how.
struct CertifyRequest : BallRun {
  std::vector<Hook> hooks;
  std::vector<RowPlace> rows;
  std::string claims;       ///< statements to be proved or disproved, see claims.h; `claims_file` names them in errors
  std::string claims_file;
  std::string kernel = "auto";
  size_t digits = 0;  ///< of decimal enclosures of every value; 0 for none
  std::optional<size_t> bits;  ///< of the middles at the start; found if it is not given
  /// A share of the work, from 0 to 1, and what is being done.
  std::function<void(double share, const std::string& what)> progress;
};

/// One tensor's values, rounded correctly to fp32 where that is proved.
struct CertifiedTensor {
  Hook hook;
  std::vector<Matrix<float>> values;  ///< (position, width); of scores and pattern one for each head
  std::string radius;                 ///< of the widest ball, rounded up
  /// The widest ball's place in the flat tensor and its middle, exactly: by them the radius can be refuted.
  struct Widest {
    size_t at;
    std::string centre;  ///< "1f3 -4a": an integer and an exponent of two, in hexadecimal
  };
  std::optional<Widest> widest;       ///< none where all is exact
  size_t decided = 0;                 ///< masked entries of scores and pattern are not counted
  std::vector<size_t> undecided, ties, infinite;  ///< places in the flat tensor
  std::vector<std::string> enclosures;            ///< "[1.25 +/- 3e-60]", if digits were asked for
};

/// What is known of a RowPlace.
struct CertifiedRow {
  std::vector<double> nearest;          ///< doubles next to the middles
  std::vector<float> rounded;           ///< to fp32
  std::vector<std::string> enclosures;  ///< of CertifyRequest::digits digits
  size_t undecided = 0;
};

struct Certificate {
  size_t bits = 0;  ///< of the middles at the start
  size_t decided = 0, undecided = 0, ties = 0, infinite = 0;
  std::vector<CertifiedTensor> tensors;
  std::vector<CertifiedRow> rows;
  struct Argmax {
    size_t token;
    bool proved;  ///< every other logit is smaller
  };
  std::optional<Argmax> argmax;  ///< of the last position, if the logits were asked for
  std::vector<ClaimResult> claims;
};

/// Encloses the activations of the run, at the precision that decides their roundings. Throws InputError for what
/// cannot be certified.
Certificate certify(const Model& model, const CertifyRequest& request);

/// Throws InputError where this build cannot certify.
void require_certify();

}  // namespace sinkref
