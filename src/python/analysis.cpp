// Metrics, the logit lens and attribution for Python.

#include <algorithm>
#include <nlohmann/json.hpp>

#include "arithmetic/chain_roundings.h"
#include "base/json_file.h"
#include "python/handles.h"
#include "sinkref/attribution.h"
#include "sinkref/error.h"
#include "sinkref/lens.h"
#include "sinkref/metric.h"
#include "sinkref/sweep.h"

namespace sinkref::python {

namespace {

/// The options of a model's runs, which a signal ends.
RunOptions options_of(const Opened& opened) {
  RunOptions options = opened.options;
  options.progress = [](size_t, size_t) { check_signals(); };
  return options;
}

Metric metric_of(const char* name, size_t token, size_t other) {
  for (const Metric::Kind kind : metric_kinds)
    if (name == std::string_view(metric_name(kind))) return {kind, token, other};
  throw std::logic_error("there is no metric " + std::string(name));
}

template <class T>
void measure_as(const Metric& metric, const void* rows, size_t count, size_t width, double* values) {
  check_metric(metric, width);
  const Kernels<T>& kernels = find_kernels<T>("auto");
  const T* row = static_cast<const T*>(rows);
  for (size_t i = 0; i < count; ++i) values[i] = measure<T>(metric, kernels, {row + i * width, width});
}

template <class T>
void lens_as(const Opened& opened, const std::vector<int>& tokens, const std::vector<size_t>& positions, T* logits) {
  opened.load_layers();
  lens<T>(opened.model, options_of(opened), tokens, positions, [&](size_t layer, const Matrix<T>& rows) {
    std::copy(rows.values.begin(), rows.values.end(), logits + layer * rows.values.size());
  });
}

template <class T>
ScoreAttribution attribute_as(const Opened& opened, const std::vector<int>& tokens, size_t layer, size_t head,
                              size_t query, size_t key, Writers writers) {
  opened.load_layers();
  return attribute_score<T>(opened.model, options_of(opened), tokens, layer, head, query, key, writers);
}

}  // namespace

}  // namespace sinkref::python

using namespace sinkref;
using namespace sinkref::python;

int sinkref_block_point(const sinkref_model* model, const char* name, const char* where, size_t* index) {
  return guarded([&] {
    const size_t layers = model->opened->model.config().layers;
    *index = hook_index({block_point(name, where), 0}, layers);
  });
}

size_t sinkref_chain_roundings(size_t terms) { return chain_roundings(terms); }

const char* sinkref_metrics() {
  static const std::string text = [] {
    nlohmann::ordered_json metrics;
    for (const Metric::Kind kind : metric_kinds) metrics[metric_name(kind)] = metric_tokens(kind);
    return json_text(metrics, -1);
  }();
  return text.c_str();
}

int sinkref_check_observed(const sinkref_model* model, const char* metric, const char* observed) {
  return guarded([&] {
    check_observed(metric_of(metric, 0, 0).kind, hook_of(observed, model->opened->model));
  });
}

int sinkref_measure(const char* metric, size_t token, size_t other, const void* rows, size_t count, size_t width,
                    int fp64, double* values) {
  return guarded([&] {
    const Metric chosen = metric_of(metric, token, other);
    fp64 ? measure_as<double>(chosen, rows, count, width, values) : measure_as<float>(chosen, rows, count, width, values);
  });
}

int sinkref_lens(const sinkref_model* model, const int32_t* tokens, size_t length, const size_t* position,
                 size_t positions, void* logits) {
  return guarded([&] {
    const std::shared_ptr<Opened> opened = model->opened;
    const std::vector<int> ids(tokens, tokens + length);
    const std::vector<size_t> kept(position, position + positions);
    opened->fp64 ? lens_as(*opened, ids, kept, static_cast<double*>(logits))
                 : lens_as(*opened, ids, kept, static_cast<float*>(logits));
  });
}

int sinkref_attribute_score(const sinkref_model* model, const int32_t* tokens, size_t length, size_t layer, size_t head,
                            size_t query, size_t key, int by_head, sinkref_buffer** about, sinkref_buffer** values) {
  return guarded([&] {
    const std::shared_ptr<Opened> opened = model->opened;
    const auto attribute = opened->fp64 ? attribute_as<double> : attribute_as<float>;
    const ScoreAttribution found = attribute(*opened, {tokens, tokens + length}, layer, head, query, key,
                                             by_head ? Writers::heads : Writers::layers);
    auto numbers = std::make_unique<sinkref_buffer>();
    numbers->bytes.assign(reinterpret_cast<const char*>(found.values.values.data()),
                          found.values.values.size() * sizeof(double));
    *about = new sinkref_buffer{json_text({{"query_labels", found.query_labels},
                                           {"key_labels", found.key_labels},
                                           {"score", found.score},
                                           {"bound", found.bound}}, -1)};
    *values = numbers.release();
  });
}
