#include "cli/verify_output.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace sinkref::cli {

using nlohmann::ordered_json;

namespace {

constexpr size_t most_rows = 16;  // of a table, and of the tokens of one tensor in JSON

constexpr size_t most_problems = 8;

/// NaN and infinities have no JSON number.
ordered_json number(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  return value;
}

bool is_over(const TokenDifference& t) {
  return !(t.local_ratio() <= 1) || !(t.propagated_ratio() <= 1);
}

ordered_json token_json(const TokenDifference& t) {
  return {{"sequence", t.sequence},
          {"token", t.token},
          {"index", t.index},
          {"theirs", number(t.their_value)},
          {"ours", number(t.our_value)},
          {"truth", number(t.truth)},
          {"expected_from_their_input", number(t.expected)},
          {"max_abs", number(t.max_abs)},
          {"ulps", number(t.ulps)},
          {"relative_l2", number(t.relative_l2)},
          {"local", number(t.local)},
          {"local_budget", t.local_budget},
          {"propagated", number(t.propagated)},
          {"propagated_budget", t.propagated_budget},
          {"noise_ours", number(t.ours)},
          {"elements_over", t.over},
          {"nan", t.nan},
          {"inf", t.inf}};
}

ordered_json tensor_json(const TensorDifference& tensor, const VerifyReport& report) {
  ordered_json tokens = ordered_json::array();
  for (const TokenDifference& t : tensor.tokens)
    if (is_over(t) && tokens.size() < most_rows) tokens.push_back(token_json(t));
  ordered_json j = {{"tensor", tensor.name},
                    {"tokens_compared", tensor.tokens.size()},
                    {"tokens_over_local", tensor.tokens_over_local},
                    {"tokens_over_propagated", tensor.tokens_over_propagated},
                    {"worst", token_json(tensor.worst())},
                    {"over", tokens}};
  const auto noise = report.hf_noise.find(tensor.name);
  if (noise != report.hf_noise.end()) j["noise_hf"] = noise->second;
  return j;
}

double largest(const TensorDifference& tensor, double (TokenDifference::*of)() const) {
  double most = 0;
  for (const TokenDifference& t : tensor.tokens) most = std::max(most, (t.*of)());
  return most;
}

double largest(const TensorDifference& tensor, double TokenDifference::*of) {
  double most = 0;
  for (const TokenDifference& t : tensor.tokens) most = std::max(most, t.*of);
  return most;
}

ordered_json proof_json(const RowProof& proof) {
  ordered_json j = {{"why", proof.why}, {"tensor", proof.tensor}, {"index", proof.index}, {"left_out", nullptr}};
  if (!proof.left_out.empty()) {
    j["left_out"] = proof.left_out;
    return j;
  }
  j.update({{"enclosure", proof.enclosure},
            {"rounded", number(proof.rounded)},
            {"theirs", number(proof.theirs)},
            {"ulps", number(proof.ulps)},
            {"float64_rounds_to_it", proof.truth_rounds},
            {"row_error", number(proof.error)},
            {"row_budget", proof.budget},
            {"budgets", number(proof.budgets())},
            {"bits", proof.bits},
            {"undecided_of_row", proof.undecided}});
  return j;
}

void print_proof(const RowProof& proof) {
  const std::string element = proof.tensor + index_text(proof.index);
  if (!proof.left_out.empty()) {
    std::printf("Proved     nothing of %s: %s\n", element.c_str(), proof.left_out.c_str());
    return;
  }
  std::printf("Proved     the true value of %s (%s) is %s\n", element.c_str(), proof.why.c_str(), proof.enclosure.c_str());
  std::printf("           theirs %.9g is %.0f ulp from it, their row %.3g times what rounding can do; float64 %s\n",
              proof.theirs, proof.ulps, proof.budgets(),
              proof.truth_rounds ? "rounds to the same fp32 number" : "ROUNDS TO ANOTHER fp32 number");
}

/// Which tensor, token and element; both values; whether it begins here; how far the row is off.
void print_first(const VerifyReport& report) {
  const VerifyResult& r = report.result;
  const TensorDifference& tensor = r.tensors[*r.first];
  const TokenDifference& t = *tensor.first_over();
  const bool local = !(t.local_ratio() <= 1);
  std::printf("First      %s, token %zu%s, element %s: theirs %.9g, expected %.9g\n",
              tensor.name.c_str(), t.token,
              t.sequence > 0 ? (" of sequence " + std::to_string(t.sequence)).c_str() : "",
              index_text(t.index).c_str(), t.their_value, report.exact ? t.our_value : t.expected);
  std::printf("           ");
  if (!report.exact) std::printf("truth %.9g, ours in fp32 %.9g; ", t.truth, t.our_value);
  std::printf("%.0f ulp; %zu elements of the row are over\n", t.ulps, t.over);
  if (report.exact) return;
  std::printf("           the row is off by %.2g of its rms, %.3g times what rounding can do\n",
              local ? t.local : t.propagated, local ? t.local_ratio() : t.propagated_ratio());
  size_t own = 0, carried = 0;
  for (const TensorDifference& other : r.tensors) {
    own += other.tokens_over_local > 0;
    carried += other.tokens_over_local == 0 && other.tokens_over_propagated > 0;
  }
  const std::string agree = *r.first == 0 ? "it is the first tensor of the trace"
                                          : "tensors before it that agree: " + std::to_string(*r.first);
  if (r.step.empty()) {  // two traces: no step can be judged from its own input
    std::printf("Where      %s\n", agree.c_str());
    return;
  }
  if (local)
    std::printf("Where      it begins here, its input agrees; %s\n           tensors that leave the "
                "truth by themselves: %zu; that only carry it on: %zu\n",
                agree.c_str(), own, carried);
  else
    std::puts("Where      no single step is off by more than rounding, their sum is: many small "
              "errors of one sign?");
  std::printf("Step       %s\n", r.step.c_str());
}

void print_row(const TensorDifference& tensor, const VerifyReport& report) {
  const TokenDifference& t = tensor.worst();
  char hf[16] = "-";
  const auto noise = report.hf_noise.find(tensor.name);
  if (noise != report.hf_noise.end()) std::snprintf(hf, sizeof hf, "%.1e", noise->second);
  std::printf("  %-32s %9.3g %10.3g %6zu/%-5zu %6zu %9.2e %9.2e %9.1e %8s %5zu\n",
              tensor.name.c_str(), largest(tensor, &TokenDifference::local_ratio),
              largest(tensor, &TokenDifference::propagated_ratio), tensor.tokens_over_local,
              tensor.tokens.size(), t.token, t.max_abs, t.relative_l2,
              largest(tensor, &TokenDifference::ours), hf, t.nan + t.inf);
}

/// The worst tensor of each hook point where all agree; else those that leave the truth by themselves.
std::vector<const TensorDifference*> rows_to_print(const VerifyResult& r) {
  std::vector<const TensorDifference*> rows;
  for (const TensorDifference& tensor : r.tensors)
    if (tensor.tokens_over_local > 0) rows.push_back(&tensor);
  if (!rows.empty()) return rows;
  for (const TensorDifference& tensor : r.tensors) {
    const auto same = std::find_if(rows.begin(), rows.end(), [&](const TensorDifference* other) {
      return other->hook.point == tensor.hook.point;
    });
    const auto size = [](const TensorDifference& t) {
      return std::max(t.worst().local_ratio(), t.worst().propagated_ratio());
    };
    if (same == rows.end())
      rows.push_back(&tensor);
    else if (size(tensor) > size(**same))
      *same = &tensor;
  }
  return rows;
}

}  // namespace

std::string index_text(const std::vector<size_t>& index) {
  std::string text;
  for (size_t i : index) text += (text.empty() ? "[" : ",") + std::to_string(i);
  return text + "]";
}

ordered_json verify_json(const VerifyReport& report) {
  const VerifyResult& r = report.result;
  ordered_json j = {{"verdict", r.agrees ? "agree" : "differ"},
                    {"reference", report.reference},
                    {"candidate", report.candidate},
                    {"compared", report.exact ? "bits" : "against rounding"},
                    {"first", nullptr},
                    {"problems", r.problems},
                    {"notes", r.notes},
                    {"diagnosis", ordered_json::array()}};
  if (r.first) {
    const TensorDifference& tensor = r.tensors[*r.first];
    j["first"] = {{"tensor", tensor.name}};
    j["first"].update(token_json(*tensor.first_over()));
  } else if (r.wrong_token) {
    j["first"] = {{"tensor", "tokens"}, {"token", *r.wrong_token},
                  {"index", {0, *r.wrong_token}}, {"ours", nullptr}, {"theirs", nullptr}};
  }
  for (const Diagnosis& d : r.diagnosis)
    j["diagnosis"].push_back({{"fault", d.fault}, {"certainty", d.certainty}, {"detail", d.detail}});
  if (report.proofs) {
    j["certified"] = ordered_json::array();
    for (const RowProof& proof : *report.proofs) j["certified"].push_back(proof_json(proof));
  }
  j["step"] = r.step;
  j["next"] = r.next;
  j["candidate_dtype"] = number_type_name(r.arithmetic.activations);
  j["candidate_cache"] = number_type_name(r.arithmetic.cache);
  j["provenance"] = report.provenance;
  j["tensors"] = ordered_json::array();
  for (const TensorDifference& tensor : r.tensors) j["tensors"].push_back(tensor_json(tensor, report));
  return j;
}

void print_verify(const VerifyReport& report) {
  const VerifyResult& r = report.result;
  const size_t tokens = r.tensors.empty() ? 0 : r.tensors[0].tokens.size();
  std::printf("Candidate  %s: %zu tensors of %zu tokens, %s, cache %s\n", report.candidate.c_str(),
              r.tensors.size(), tokens, number_type_name(r.arithmetic.activations),
              number_type_name(r.arithmetic.cache));
  std::printf("Verdict    %s\n", r.agrees ? (report.exact ? "equal bits" : "agrees within rounding")
                                           : "DIFFERS");
  for (size_t i = 0; i < std::min(r.problems.size(), most_problems); ++i)
    std::printf("Problem    %s\n", r.problems[i].c_str());
  if (r.problems.size() > most_problems)
    std::printf("           … and %zu more\n", r.problems.size() - most_problems);
  if (r.first) print_first(report);
  if (report.proofs)
    for (const RowProof& proof : *report.proofs) print_proof(proof);
  for (const Diagnosis& d : r.diagnosis)
    std::printf("Diagnosis  %s (%s): %s\n", d.fault.c_str(), d.certainty.c_str(), d.detail.c_str());
  if (!r.next.empty()) std::printf("Next       %s\n", r.next.c_str());
  for (const std::string& note : r.notes) std::printf("Note       %s\n", note.c_str());
  if (r.tensors.empty()) return;
  const std::vector<const TensorDifference*> rows = rows_to_print(r);
  std::printf("\n  %-32s %9s %10s %12s %6s %9s %9s %9s %8s %5s\n", "tensor", "local", "propagated",
              "tokens over", "worst", "max |d|", "rel. L2", "our noise", "HF's", "NaN");
  for (size_t i = 0; i < std::min(rows.size(), most_rows); ++i) print_row(*rows[i], report);
  if (rows.size() > most_rows)
    std::printf("  … and %zu more; --json has all\n", rows.size() - most_rows);
  if (!report.exact)
    std::puts("  (local, propagated: error over budget, from their own input of each step and from "
              "the tokens;\n   above 1 is more than rounding can do)");
}

}  // namespace sinkref::cli
