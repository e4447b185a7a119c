// bench: how fast the kernels and a whole model run, beside OpenBLAS and the machine's limits.

#include <charconv>
#include <cstdio>
#include <iostream>
#include <nlohmann/json.hpp>

#include "arithmetic/dtypes.h"
#include "arithmetic/openblas.h"
#include "base/threads.h"
#include "bench/bench.h"
#include "cli/commands.h"
#include "cli/inputs.h"
#include "sinkref/error.h"

namespace sinkref::cli {

using nlohmann::ordered_json;

namespace {

struct BenchCommand : RunningCommand {
  size_t prefill = 0, decode = 0, runs = 5;
  std::string shapes, rows = "1,4,16,64,512", dtype = "F32";

  OptionTable table() override {
    return joined({{{"prefill", number(prefill, 0), "tokens of the prompt to time, 0 for none"},
                    {"decode", number(decode, 0),
                     "tokens to time one at a time after the prompt, 0 for none"},
                    {"shapes", text("NAMES", shapes),
                     "matrices to time: llama-2-7b, llama-3-8b, mistral-7b, smollm2 (all four if no "
                     "model is timed), or OUTPUTSxINPUTS"},
                    {"rows", text("NUMBERS", rows), "rows of activations of each matrix product"},
                    {"dtype", text("NAMES", dtype),
                     "stored types of the weights, some of " + dtype_names()},
                    {"runs", number(runs, 1, 1000),
                     "rounds in which all that is timed takes turns; medians are printed"}},
                   kernel_row(), chunk_row()});
  }
  int run() const override;
  bool whole_model() const { return prefill > 0 || decode > 0; }
  bool needs_model() const override { return whole_model(); }
};

std::vector<std::string> parts_of(const std::string& text) {
  std::vector<std::string> parts;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t comma = std::min(text.find(',', begin), text.size());
    parts.push_back(text.substr(begin, comma - begin));
    begin = comma + 1;
  }
  return parts;
}

std::vector<size_t> parse_rows(const std::string& text) {
  std::vector<size_t> rows;
  for (const std::string& part : parts_of(text)) {
    size_t value = 0;
    const auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), value);
    if (error != std::errc() || end != part.data() + part.size() || value < 1 || value > 65536)
      throw InputError("--rows " + quoted(part) + ": expected numbers of rows from 1 to 65536, as "
                       "1,16,512");
    rows.push_back(value);
  }
  return rows;
}

std::vector<DType> parse_dtypes(const std::string& text) {
  std::vector<DType> dtypes;
  for (const std::string& part : parts_of(text)) {
    std::string upper = part;
    for (char& c : upper) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
    const DTypeRow* known = dtype_named(upper);
    if (known == nullptr || !known->dtype)
      throw InputError("--dtype " + quoted(part) + ": expected some of " + dtype_names());
    dtypes.push_back(*known->dtype);
  }
  return dtypes;
}

/// The head of a model runs for a prompt's last token, or for a few sequences at once.
bool is_used(const MatmulShape& shape, size_t rows) { return shape.matrix != "head" || rows <= 16; }

ordered_json matmul_json(const MatmulShape& shape, size_t rows, DType dtype, const MatmulTiming& t) {
  const double flops = 2.0 * static_cast<double>(rows * shape.outputs * shape.inputs);
  const DTypeInfo& info = dtype_info(dtype);
  const double bytes = static_cast<double>(shape.outputs * shape.inputs / info.block * info.bytes);
  return {{"model", shape.model},
          {"matrix", shape.matrix},
          {"outputs", shape.outputs},
          {"inputs", shape.inputs},
          {"rows", rows},
          {"dtype", info.name},
          {"seconds", t.seconds},
          {"gflop_per_s", flops / t.seconds * 1e-9},
          {"weight_gb_per_s", bytes / t.seconds * 1e-9},
          {"read_bandwidth_share", t.read_share},
          {"fma_peak_share", t.peak_share},
          {"rms_error", t.rms_error},
          {"openblas_gflop_per_s", flops / t.openblas_seconds * 1e-9},
          {"times_openblas", t.openblas_seconds / t.seconds},
          {"openblas_rms_error", t.openblas_rms_error}};
}

void print_heading() {
  std::printf("%-22s %-8s %6s x %-5s %4s %-5s %8s %7s %6s %6s %9s %6s  %-8s %s\n", "model", "matrix",
              "out", "in", "rows", "dtype", "GFLOP/s", "GB/s", "read", "peak", "OpenBLAS", "times",
              "error", "OpenBLAS's");
}

void print_matmul(const ordered_json& j) {
  std::printf("%-22s %-8s %6zu x %-5zu %4zu %-5s %8.1f %7.1f %5.0f%% %5.0f%% %9.1f %6.2f  %.2e %.2e\n",
              j["model"].get<std::string>().c_str(), j["matrix"].get<std::string>().c_str(),
              j["outputs"].get<size_t>(), j["inputs"].get<size_t>(), j["rows"].get<size_t>(),
              j["dtype"].get<std::string>().c_str(), j["gflop_per_s"].get<double>(),
              j["weight_gb_per_s"].get<double>(), 100 * j["read_bandwidth_share"].get<double>(),
              100 * j["fma_peak_share"].get<double>(), j["openblas_gflop_per_s"].get<double>(),
              j["times_openblas"].get<double>(), j["rms_error"].get<double>(),
              j["openblas_rms_error"].get<double>());
  std::fflush(stdout);
}

ordered_json bench_matmuls(const BenchCommand& options) {
  const std::vector<MatmulShape> shapes = matmul_shapes(
      options.shapes.empty() ? "llama-2-7b,llama-3-8b,mistral-7b,smollm2" : options.shapes);
  const std::vector<size_t> rows = parse_rows(options.rows);
  const std::vector<DType> dtypes = parse_dtypes(options.dtype);
  ordered_json all = ordered_json::array();
  for (const MatmulShape& shape : shapes)
    for (DType dtype : dtypes)
      for (size_t r : rows) {
        if (!is_used(shape, r)) continue;
        all.push_back(
            matmul_json(shape, r, dtype, time_matmul(shape, r, dtype, options.kernel, options.runs)));
        if (options.json) continue;
        if (all.size() == 1) print_heading();
        print_matmul(all.back());
      }
  return all;
}

ordered_json bench_model(const BenchCommand& options) {
  const ModelTiming t = time_model(options.model, options.kernel, options.chunk, options.prefill,
                                   options.decode, options.runs);
  const auto or_null = [](bool asked, double value) {
    return asked ? ordered_json(value) : ordered_json(nullptr);
  };
  return {{"model", options.model},
          {"prefill", options.prefill},
          {"decode", options.decode},
          {"prefill_tokens_per_s", or_null(options.prefill > 0, t.prefill_tokens_per_s)},
          {"decode_tokens_per_s", or_null(options.decode > 0, t.decode_tokens_per_s)},
          {"prefill_peak_share", or_null(options.prefill > 0, t.prefill_peak_share)},
          {"decode_read_share", or_null(options.decode > 0, t.decode_read_share)},
          {"open_seconds", t.open_seconds},
          {"first_token_seconds", t.first_token_seconds},
          {"read_gb_per_s", t.read_gb_per_s},
          {"fma_peak_gflop_per_s", t.peak_gflop_per_s},
          {"peak_rss_bytes", t.peak_rss_bytes}};
}

}  // namespace

int BenchCommand::run() const {
  const BenchCommand& options = *this;
  const std::string chosen = find_kernels<float>(options.kernel).name;  // a wrong one shows here
  ordered_json j;
  if (whole_model()) j = bench_model(options);
  j["threads"] = thread_count();
  j["kernel"] = chosen;
  j["runs"] = options.runs;
  j["openblas_core"] = openblas_core();
  if (!whole_model() || !options.shapes.empty()) {
    j["matmul"] = bench_matmuls(options);
    if (j["openblas_core"] == "Prescott")  // its fallback is a weak opponent
      say("OpenBLAS does not know this processor and ran SSE3 kernels; for its best, set "
          "OPENBLAS_CORETYPE=SkylakeX (AVX-512) or Haswell (AVX2)");
  }
  if (options.json) {
    std::cout << json_text(j) << '\n';
    return 0;
  }
  for (const auto& [key, value] : j.items())
    if (!value.is_array())
      std::cout << key << std::string(24 - std::min<size_t>(23, key.size()), ' ')
                << (value.is_string() ? value.get<std::string>() : json_text(value, -1)) << '\n';
  return 0;
}

std::unique_ptr<Command> make_bench() { return std::make_unique<BenchCommand>(); }

}  // namespace sinkref::cli
