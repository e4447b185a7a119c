// bench: how fast the kernels and a whole model run, beside OpenBLAS and the machine's limits.

#include <charconv>
#include <cstdio>
#include <iostream>
#include <nlohmann/json.hpp>

#include "arithmetic/openblas.h"
#include "base/threads.h"
#include "bench/bench.h"
#include "cli/commands.h"
#include "cli/inputs.h"
#include "sinkref/error.h"

namespace sinkref::cli {

using nlohmann::ordered_json;

namespace {

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
  constexpr DType all[] = {DType::F32,  DType::F16,  DType::BF16, DType::Q8_0,
                           DType::Q4_0, DType::Q4_1, DType::Q5_0, DType::Q5_1,
                           DType::Q4_K, DType::Q5_K, DType::Q6_K};
  std::vector<DType> dtypes;
  for (const std::string& part : parts_of(text)) {
    std::string upper = part, known;
    for (char& c : upper) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
    const size_t before = dtypes.size();
    for (DType dtype : all) {
      known += (known.empty() ? "" : ", ") + std::string(dtype_info(dtype).name);
      if (upper == dtype_info(dtype).name) dtypes.push_back(dtype);
    }
    if (dtypes.size() == before)
      throw InputError("--dtype " + quoted(part) + ": expected some of " + known);
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

ordered_json bench_matmuls(const Options& options) {
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

ordered_json bench_model(const Options& options) {
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

int bench(const Options& options) {
  const bool whole_model = options.prefill > 0 || options.decode > 0;
  const std::string kernel = find_kernels<float>(options.kernel).name;  // a wrong one shows here
  ordered_json j;
  if (whole_model) j = bench_model(options);
  j["threads"] = thread_count();
  j["kernel"] = kernel;
  j["runs"] = options.runs;
  j["openblas_core"] = openblas_core();
  if (!whole_model || !options.shapes.empty()) {
    j["matmul"] = bench_matmuls(options);
    if (j["openblas_core"] == "Prescott")  // its fallback is a weak opponent
      say("OpenBLAS does not know this processor and ran SSE3 kernels; for its best, set "
          "OPENBLAS_CORETYPE=SkylakeX (AVX-512) or Haswell (AVX2)");
  }
  if (options.json) {
    std::cout << j.dump(2) << '\n';
    return 0;
  }
  for (const auto& [key, value] : j.items())
    if (!value.is_array())
      std::cout << key << std::string(24 - std::min<size_t>(23, key.size()), ' ')
                << (value.is_string() ? value.get<std::string>() : value.dump()) << '\n';
  return 0;
}

}  // namespace sinkref::cli
