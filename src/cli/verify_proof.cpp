#include "cli/verify_proof.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "certify/certify.h"
#include "certify/cost.h"
#include "cli/reach.h"
#include "verify/candidate.h"
#include "verify/difference.h"
#include "verify/row.h"

namespace sinkref::cli {

namespace {

constexpr size_t shown_digits = 20;  // more than a double tells apart

struct Place {
  std::string why;
  const TensorDifference* tensor;
  const TokenDifference* row;
};

/// The larger of the two ratios; what is no number counts as the largest.
double size_of(const TokenDifference& t) {
  const double size = std::max(t.local_ratio(), t.propagated_ratio());
  return std::isnan(size) ? std::numeric_limits<double>::infinity() : size;
}

std::vector<Place> places_of(const VerifyResult& result) {
  std::vector<Place> places;
  if (result.tensors.empty()) return places;
  if (result.first) {
    const TensorDifference& tensor = result.tensors[*result.first];
    places.push_back({"first", &tensor, tensor.first_over()});
  }
  const auto worst = std::max_element(result.tensors.begin(), result.tensors.end(),
                                      [](const TensorDifference& a, const TensorDifference& b) {
                                        return size_of(a.worst()) < size_of(b.worst());
                                      });
  if (places.empty() || places[0].row != &worst->worst()) places.push_back({"worst", &*worst, &worst->worst()});
  return places;
}

/// Head and column of an element; its index begins with the sequence.
RowPlace row_of(Hook hook, const TokenDifference& row) {
  return {hook, is_attention(hook.point) ? row.index[1] : 0, row.token};
}
size_t column_of(const Place& place, const ModelConfig& config) {
  const std::vector<size_t>& index = place.row->index;
  if (is_attention(place.tensor->hook.point)) return index.back();
  size_t column = 0;
  const std::vector<size_t> shape = hook_shape(place.tensor->hook.point, config);
  for (size_t d = 0; d < shape.size(); ++d) column = column * shape[d] + index[2 + d];
  return column;
}

/// A row comes from the tokens up to its own alone.
CertifyRequest request_of(const Place& place, const std::vector<int>& tokens, const VerifyOptions& options) {
  CertifyRequest request;
  request.tokens.assign(tokens.begin(), tokens.begin() + static_cast<long>(place.row->token + 1));
  request.softmax = options.softmax;
  request.patch = options.patch;
  request.ablation = options.ablation;
  request.kernel = options.kernel;
  request.digits = shown_digits;
  request.rows = {row_of(place.tensor->hook, *place.row)};
  return request;
}

std::vector<double> their_row(const Candidate& candidate, const Place& place, size_t width) {
  const Hook hook = place.tensor->hook;
  std::vector<double> row(width);
  if (is_attention(hook.point))
    candidate.attention_row(hook, place.row->sequence, place.row->index[1], place.row->token, width, row.data());
  else
    candidate.row(hook, place.row->sequence, place.row->token, row.data());
  return row;
}

}  // namespace

std::vector<RowProof> prove_rows(const Model& model, const TraceFile& file, const VerifyOptions& options,
                                 const VerifyResult& result, const std::function<void(double)>& share) {
  const ModelConfig& config = model.config();
  const Candidate candidate(file, config, "", std::nullopt);
  std::vector<RowProof> proofs;
  const std::vector<Place> places = places_of(result);
  for (size_t i = 0; i < places.size(); ++i) {
    const Place& place = places[i];
    RowProof proof;
    proof.why = place.why;
    proof.tensor = place.tensor->name;
    proof.index = place.row->index;
    proof.theirs = place.row->their_value;
    proof.budget = place.row->propagated_budget;
    CertifyRequest request = request_of(place, candidate.tokens()[place.row->sequence], options);
    proof.left_out = out_of_reach(certify_cost(config, request));
    if (proof.left_out.empty()) {
      request.progress = [&](double done, const std::string&) {
        share((static_cast<double>(i) + done) / static_cast<double>(places.size()));
      };
      const Certificate certificate = certify(model, request);
      const CertifiedRow& row = certificate.rows[0];
      const size_t column = column_of(place, config);
      const std::vector<double> theirs = their_row(candidate, place, row.nearest.size());
      const RowDifference difference = row_difference(row.nearest.data(), theirs.data(), row.nearest.size());
      proof.bits = certificate.bits;
      proof.undecided = row.undecided;
      proof.enclosure = row.enclosures[column];
      proof.rounded = row.rounded[column];
      proof.ulps = ulps_between(proof.rounded, static_cast<float>(proof.theirs));
      proof.truth_rounds = static_cast<float>(place.row->truth) == proof.rounded;
      proof.error = in_units(difference.rms(), unit_of(place.tensor->hook.point, difference.truth_rms()));
    }
    proofs.push_back(std::move(proof));
  }
  return proofs;
}

}  // namespace sinkref::cli
