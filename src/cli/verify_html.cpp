// The same findings as one page with no outside parts: a heat map of blocks against hook points.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>

#include "cli/verify_output.h"
#include "page/chart.h"

namespace sinkref::cli {

namespace {

std::string format(const char* pattern, double value) {
  char text[64];
  std::snprintf(text, sizeof text, pattern, value);
  return text;
}

constexpr const char* head = R"(<!doctype html><html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width,initial-scale=1"><title>sinkref verify</title>
<meta name="color-scheme" content="light dark">
<style>:root{--ink:#1b1b1f;--page:#fff;--line:#e5e5ea;--code:#f3f3f6;--good:#14733c;--bad:#b3261e}
@media(prefers-color-scheme:dark){:root{--ink:#e6e6ea;--page:#16161a;--line:#34343c;--code:#25252c;--good:#6fd39a;--bad:#ff8a80}}
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:72rem;padding:0 1rem;color:var(--ink);background:var(--page);overflow-wrap:anywhere}
h1{font-size:1.3rem}h2{font-size:1.05rem;margin-top:2rem}table{border-collapse:collapse;font-size:13px}
td,th{padding:.2rem .5rem;text-align:right;border-bottom:1px solid var(--line);white-space:nowrap}td:first-child,th:first-child{text-align:left}
.scroll{overflow-x:auto}.map td[style]{width:2.4rem;text-align:center;border:1px solid var(--page);color:#1b1b1f}
.agree{color:var(--good)}.differ{color:var(--bad)}code{background:var(--code);padding:0 .25rem}
</style>
)";

/// Green below the budget, red above it, by the logarithm.
std::string colour(double ratio) {
  if (!(ratio > 0)) return "#eef6f0";
  if (!std::isfinite(ratio)) return "#b3261e";
  const double level = std::clamp(std::log10(ratio), -3.0, 3.0);
  const int hue = level > 0 ? 8 : 140, light = static_cast<int>(94 - 12 * std::fabs(level > 0 ? level + 1 : 3 + level));
  return "hsl(" + std::to_string(hue) + ",55%," + std::to_string(std::max(light, 55)) + "%)";
}

double worst_local(const TensorDifference& tensor) {
  double most = 0;
  for (const TokenDifference& t : tensor.tokens) most = std::max(most, t.local_ratio());
  return most;
}

std::string heat_map(const VerifyResult& r) {
  std::vector<HookPoint> points;
  std::map<size_t, std::map<HookPoint, const TensorDifference*>> rows;
  for (const TensorDifference& tensor : r.tensors) {
    if (!tensor.name.starts_with("blocks.")) continue;
    rows[tensor.hook.layer][tensor.hook.point] = &tensor;
    if (std::find(points.begin(), points.end(), tensor.hook.point) == points.end())
      points.push_back(tensor.hook.point);
  }
  std::sort(points.begin(), points.end());
  std::string html = "<div class=\"map scroll\"><table><tr><th>block";
  for (HookPoint point : points) {
    const std::string name = hook_name({point, 0});
    html += "<th>" + name.substr(name.find("hook_") + 5);
  }
  for (const auto& [layer, tensors] : rows) {
    html += "<tr><td>" + std::to_string(layer);
    for (HookPoint point : points) {
      const auto found = tensors.find(point);
      if (found == tensors.end()) {
        html += "<td>";
        continue;
      }
      const double ratio = worst_local(*found->second);
      html += "<td style=\"background:" + colour(ratio) + "\" title=\"" +
              escaped(found->second->name) + "\">" + format("%.2g", ratio);
    }
  }
  return html + "</table></div>";
}

std::string tensor_table(const VerifyReport& report) {
  std::string html = "<table><tr><th>tensor<th>local / budget<th>propagated / budget<th>tokens over"
                     "<th>worst token<th>element<th>theirs<th>ours<th>truth<th>max |Δ|<th>rel. L2"
                     "<th>our noise<th>NaN, Inf";
  for (const TensorDifference& tensor : report.result.tensors) {
    const TokenDifference& t = tensor.worst();
    html += "<tr><td>" + escaped(tensor.name) + "<td>" + format("%.3g", t.local_ratio()) + "<td>" +
            format("%.3g", t.propagated_ratio()) + "<td>" +
            std::to_string(tensor.tokens_over_local) + "/" + std::to_string(tensor.tokens.size()) +
            "<td>" + std::to_string(t.token) + "<td>" + index_text(t.index) + "<td>" +
            format("%.7g", t.their_value) + "<td>" + format("%.7g", t.our_value) + "<td>" +
            format("%.9g", t.truth) + "<td>" + format("%.2e", t.max_abs) + "<td>" +
            format("%.2e", t.relative_l2) + "<td>" + format("%.1e", t.ours) + "<td>" +
            std::to_string(t.nan + t.inf);
  }
  return html + "</table>";
}

std::string proof_html(const RowProof& proof) {
  const std::string element = "<code>" + escaped(proof.tensor) + index_text(proof.index) + "</code>";
  if (!proof.left_out.empty()) return "<p>Nothing is proved of " + element + ": " + escaped(proof.left_out) + "</p>";
  return "<p><b>Proved</b>: the true value of " + element + " (" + proof.why + ") is <code>" + escaped(proof.enclosure) +
         "</code>; theirs " + format("%.9g", proof.theirs) + " is " + format("%.0f", proof.ulps) +
         " ulp from it, their row " + format("%.3g", proof.budgets()) + " times what rounding can do; float64 rounds to " +
         (proof.truth_rounds ? "the same" : "another") + " fp32 number.</p>";
}

}  // namespace

std::string verify_html(const VerifyReport& report) {
  const VerifyResult& r = report.result;
  std::string html = head;
  html += std::string("<h1>sinkref verify: <span class=") + (r.agrees ? "agree>" : "differ>") +
          (r.agrees ? report.exact ? "equal bits" : "agrees within rounding" : "differs") +
          "</span></h1><p><code>" + escaped(report.candidate) + "</code> against <code>" +
          escaped(report.reference) + "</code>.</p>";
  for (const std::string& problem : r.problems) html += "<p class=differ>" + escaped(problem) + "</p>";
  if (r.first) {
    const TensorDifference& tensor = r.tensors[*r.first];
    const TokenDifference& t = *tensor.first_over();
    html += "<p>First: <code>" + escaped(tensor.name) + "</code>, token " + std::to_string(t.token) +
            ", element <code>" + index_text(t.index) + "</code>: theirs " +
            format("%.9g", t.their_value) + ", expected " +
            format("%.9g", report.exact ? t.our_value : t.expected) + ".</p>";
    if (!r.step.empty()) html += "<p>This step: <code>" + escaped(r.step) + "</code></p>";
  }
  if (report.proofs)
    for (const RowProof& proof : *report.proofs) html += proof_html(proof);
  for (const Diagnosis& d : r.diagnosis)
    html += "<p><b>" + escaped(d.fault) + "</b> (" + d.certainty + "): " + escaped(d.detail) + "</p>";
  if (!r.next.empty()) html += "<p>Next: " + escaped(r.next) + "</p>";
  for (const std::string& note : r.notes) html += "<p>" + escaped(note) + "</p>";
  html += "<h2>Error over budget, each step from their own input</h2>" + heat_map(r);
  html += "<h2>All tensors, in causal order</h2><div class=scroll>" + tensor_table(report) + "</div>";
  html += "<p>";
  for (const auto& [key, value] : report.provenance)
    html += escaped(key) + ": <code>" + escaped(value) + "</code> · ";
  return html + "</p></html>\n";
}

}  // namespace sinkref::cli
