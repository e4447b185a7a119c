// certify: a run's tensors as correctly rounded real numbers, with what was proved of them.

#include "certify/certify.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <iostream>

#include "base/output_file.h"
#include "base/sha256.h"
#include "certify/cost.h"
#include "cli/commands.h"
#include "cli/inputs.h"
#include "cli/output.h"
#include "cli/reach.h"
#include "sinkref/error.h"
#include "sinkref/forward.h"
#include "sinkref/trace.h"

namespace sinkref::cli {

using nlohmann::ordered_json;

namespace {

constexpr double long_run = 10;  // seconds: said before they pass

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) { return std::chrono::duration<double>(Clock::now() - begin).count(); }

struct CertifyCommand : RunningCommand {
  std::string hooks = "logits";
  std::optional<std::string> out, claims;
  std::optional<size_t> digits, bits;
  std::string rope = "stored";
  bool force = false, at_any_cost = false;

  OptionTable table() override {
    return joined({prompt_rows(), id_rows(), bos_row(),
                   {{"hooks", text("GLOBS", hooks), "the tensors to certify, as 'blocks.*.hook_resid_post,logits'"}},
                   output_rows(out, force, "FILE", "safetensors file to write"),
                   {{"claims", text("FILE", claims), "statements to prove or disprove, one a line"},
                    {"digits", number(digits, 1, 5000),
                     "also write FILE.digits.jsonl: every value's decimal enclosure, of up to N digits"},
                    {"rope", text("TABLE", rope),
                     "RoPE's cos and sin. stored: the fp32 table is data; real: of the real angle; or a safetensors "
                     "file with another fp32 table, cos and sin [positions, head_dim/2]"}},
                   patch_row(), patch_site_row(), ablate_row(), softmax_row(), kernel_row(),
                   {{"bits", number(bits, 32, 100000), "precision at the start; found by itself without it"},
                    {"at-any-cost", flag(at_any_cost),
                     "run what is estimated to take more than an hour or the free memory"}}});
  }
  int run() const override;
};

/// A table that another program made, for a model whose heads have so many pairs.
void read_rope(const std::string& rope, size_t pairs, CertifyRequest& request) {
  request.rope = rope == "stored" ? RopeTable::stored : rope == "real" ? RopeTable::real : RopeTable::given;
  if (request.rope != RopeTable::given) return;
  const TraceFile table = TraceFile::open(rope);
  for (const auto& [name, into] : {std::pair{"cos", &request.cosines}, {"sin", &request.sines}}) {
    const std::vector<uint64_t> shape = table.shape(name);
    if (shape.size() != 2 || shape[1] != pairs)
      refuse(rope, std::string(name) + " has another shape, expected [positions," + std::to_string(pairs) + "]");
    const std::vector<double> values = table.values(name);
    into->assign(values.begin(), values.end());
  }
}

/// A given table, for __metadata__.
ordered_json rope_json(const CertifyRequest& request) {
  return {{"cos", request.cosines}, {"sin", request.sines}};
}

CertifyRequest request_of(const CertifyCommand& options, const Model& model, std::vector<std::string>& notes) {
  CertifyRequest request;
  std::vector<std::vector<int>> batch = read_tokens(options, model.checkpoint(), &model, &notes);
  if (batch.size() != 1)
    refuse(*options.tokens_file, "holds " + std::to_string(batch.size()) + " sequences, expected one",
           "certify one list of ids at a time");
  request.tokens = std::move(batch[0]);
  request.softmax = options.softmax;
  read_rope(options.rope, model.config().head_dim / 2, request);
  request.patch = chosen_patch(options, model);
  request.patch_site = options.patch_site;
  request.ablation = chosen_ablation(options, model);
  request.hooks = select_hooks(options.hooks, model.config().layers);
  request.kernel = options.kernel;
  request.digits = options.digits.value_or(0);
  request.bits = options.bits;
  if (options.claims) {
    request.claims_file = *options.claims;
    request.claims = read_text_file(*options.claims);
  }
  return request;
}

/// One line that is written again and again: how far, and the seconds that are left.
std::function<void(double, const std::string&)> bar() {
  if (!isatty(2)) return {};
  return [begin = Clock::now(), before = 1.0](double share, const std::string& what) mutable {
    if (share < before) begin = Clock::now();  // a new attempt
    before = share;
    constexpr size_t width = 30;
    const auto full = static_cast<size_t>(share * width);
    const auto left = static_cast<long>(seconds_since(begin) * (1 - share) / std::max(share, 1e-3) + 0.5);
    std::cerr << "\r[" << std::string(full, '#') << std::string(width - full, ' ') << "] "
              << static_cast<int>(share * 100) << " %, " << what << ", " << left << " s left   "
              << (share >= 1 ? "\n" : "") << std::flush;
  };
}

/// What __metadata__["certified"] says of each tensor.
ordered_json certified_json(const Certificate& certificate) {
  ordered_json all = ordered_json::object();
  for (const CertifiedTensor& tensor : certificate.tensors) {
    ordered_json& j = all[hook_name(tensor.hook)];
    j = {{"radius", tensor.radius}, {"undecided", tensor.undecided.size()}, {"undecided_at", tensor.undecided}};
    if (tensor.widest) j["widest"] = {{"at", tensor.widest->at}, {"centre", tensor.widest->centre}};
    if (!tensor.ties.empty()) j["ties_at"] = tensor.ties;
    if (!tensor.infinite.empty()) j["infinite_at"] = tensor.infinite;
  }
  return all;
}

ordered_json claims_json(const Certificate& certificate) {
  ordered_json all = ordered_json::array();
  for (const ClaimResult& claim : certificate.claims)
    all.push_back({{"claim", claim.text},
                   {"verdict", proof_name(claim.proof)},
                   {"left", claim.left},
                   {"right", claim.right}});
  return all;
}

/// Of the certificate and of all that lies behind the file's header: what a flipped bit changes.
std::string certified_sha256(const std::string& certified, const std::vector<int>& tokens,
                             const Certificate& certificate) {
  Sha256 sha;
  sha.update(certified.data(), certified.size());
  const std::vector<int64_t> ids(tokens.begin(), tokens.end());
  sha.update(ids.data(), ids.size() * sizeof(int64_t));
  for (const CertifiedTensor& tensor : certificate.tensors)
    for (const Matrix<float>& head : tensor.values) sha.update(head.values.data(), head.values.size() * sizeof(float));
  return sha.finish();
}

/// The tensors, as a run of fp32 would have shown them.
void write_tensors(const Certificate& certificate, const std::vector<int>& tokens, TraceWriter<float>& writer) {
  Hooks<float> hooks;
  writer.attach(hooks);
  std::vector<Row> rows;
  for (size_t p = 0; p < tokens.size(); ++p) rows.push_back({0, p, true});
  for (const CertifiedTensor& tensor : certificate.tensors)
    for (size_t head = 0; head < tensor.values.size(); ++head) {
      Matrix<float> values = tensor.values[head];
      hooks.call({tensor.hook, rows, values.cols, values[0], values.cols, head});
    }
}

std::string digits_text(const Certificate& certificate) {
  std::string text;
  for (const CertifiedTensor& tensor : certificate.tensors)
    text += json_text({{"tensor", hook_name(tensor.hook)}, {"values", tensor.enclosures}}, -1) + "\n";
  return text;
}

void say_result(const Certificate& certificate, double seconds) {
  const size_t all = certificate.decided + certificate.undecided;
  if (all > 0)
    say(std::to_string(certificate.decided) + " of " + std::to_string(all) + " values are correctly rounded, proved with " +
        std::to_string(certificate.bits) + " bits in " + std::to_string(static_cast<long>(seconds + 0.5)) + " s");
  if (certificate.ties > 0) say(std::to_string(certificate.ties) + " of them are exact ties, rounded to even");
  if (certificate.infinite > 0)
    say(std::to_string(certificate.infinite) + " of them are beyond fp32 and rounded to infinity");
  if (certificate.argmax)
    say("argmax of the last position: token " + std::to_string(certificate.argmax->token) +
        (certificate.argmax->proved ? ", proved" : ", not proved"));
  for (const ClaimResult& claim : certificate.claims)
    say(std::string(proof_name(claim.proof)) + ": " + claim.text + "   (" + claim.left + ", " + claim.right + ")");
}

ordered_json result_json(const Certificate& certificate, double seconds) {
  ordered_json j = {{"bits", certificate.bits},
                    {"decided", certificate.decided},
                    {"undecided", certificate.undecided},
                    {"ties", certificate.ties},
                    {"infinite", certificate.infinite},
                    {"seconds", seconds},
                    {"argmax", nullptr}};
  if (certificate.argmax) j["argmax"] = {{"token", certificate.argmax->token}, {"proved", certificate.argmax->proved}};
  j["claims"] = claims_json(certificate);
  return j;
}

}  // namespace

namespace {

/// The file, and beside it the decimals; the digits first, so that the file stands for both.
void write_certificate(const CertifyCommand& options, const Model& model, const CertifyRequest& request,
                       const std::vector<std::string>& notes, const Certificate& certificate) {
  const ModelConfig& config = model.config();
  auto metadata = trace_metadata(model, blocks_needed(request.hooks, config.layers), "certified", options.softmax);
  add_notes(notes, metadata);
  metadata["patch"] = neurons_text(request.patch);
  if (!request.patch.empty()) metadata["patch_site"] = patch_site_name(options.patch_site);
  metadata["ablate"] = neurons_text(request.ablation);
  metadata["rope"] = request.rope == RopeTable::given ? rope_json(request).dump() : options.rope;
  metadata["bits"] = std::to_string(certificate.bits);
  metadata["certified"] = certified_json(certificate).dump();
  metadata["certified_sha256"] = certified_sha256(metadata["certified"], request.tokens, certificate);
  if (!certificate.claims.empty()) metadata["claims"] = claims_json(certificate).dump();
  TraceWriter<float> writer(*options.out, options.force, config, request.hooks, {request.tokens}, metadata);
  write_tensors(certificate, request.tokens, writer);
  if (options.digits) write_text_file(*options.out + ".digits.jsonl", digits_text(certificate), options.force);
  writer.commit();
}

}  // namespace

int CertifyCommand::run() const {
  require_certify();
  const CertifyCommand& options = *this;
  const auto begin = Clock::now();
  if (!options.out && !options.claims)
    throw InputError("--out is missing; expected the safetensors file to write, or --claims");
  if (!options.out && options.digits)
    throw InputError("--out is missing; expected the file that --digits writes beside");
  if (options.out) OutputFile(*options.out, options.force);  // what cannot be written is said before the run
  const Model opened = open_model(options);
  std::vector<std::string> notes;
  CertifyRequest request = request_of(options, opened, notes);
  if (!options.out) request.hooks.clear();  // the claims alone
  check_tokens(opened, request.tokens);  // no cost helps against a context that is too short
  const CertifyCost cost = certify_cost(opened.config(), request);
  if (const std::string far = out_of_reach(cost); !far.empty() && !options.at_any_cost)
    refuse("certify", far, "take fewer tokens or hooks, or say --at-any-cost");
  if (cost.seconds() > long_run) say(estimate_text(cost));
  request.progress = bar();
  const Certificate certificate = certify(opened, request);
  const double seconds = seconds_since(begin);
  if (options.out) write_certificate(options, opened, request, notes, certificate);
  if (options.json) std::cout << json_text(result_json(certificate, seconds)) << '\n';
  else say_result(certificate, seconds);
  const bool all_proved = std::all_of(certificate.claims.begin(), certificate.claims.end(),
                                      [](const ClaimResult& claim) { return claim.proof == Proof::proved; });
  return all_proved ? 0 : 1;
}

std::unique_ptr<Command> make_certify() { return std::make_unique<CertifyCommand>(); }

}  // namespace sinkref::cli
