#pragma once

#include <string>
#include <vector>

#include "measure/experiment.h"

// The paper's own table (Yona et al. 2025, tables 1 and 2), to be set beside what is measured.

namespace sinkref {

struct PublishedRow {
  const char* id;     ///< as --paper takes it
  const char* model;
  size_t repeats;     ///< needed to induce the sink
  size_t layer;
  std::vector<size_t> neurons;
  double norm, norm_ablated;  ///< of the first token, about, before and after ablating the neurons
};

/// Throws InputError that lists the rows.
const PublishedRow& published_row(const std::string& id);

/// The strongest sink beside a row.
struct PaperComparison {
  PublishedRow row;
  bool found = false;  ///< there is a sink
  size_t layer = 0;
  std::vector<size_t> neurons;
  double norm = 0, norm_ablated = 0;
  std::vector<size_t> counts;  ///< repeats needed per word, usual condition; 0 where not reached
  double median_count = 0;     ///< of those reached; 0 if none
  bool layer_agrees = false, neurons_agree = false;
};
PaperComparison compare_with_paper(const PublishedRow& row, const Stimuli& stimuli,
                                   const Results& results);

}  // namespace sinkref
