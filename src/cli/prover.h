#pragma once

#include "certify/prover.h"
#include "sinkref/model.h"

namespace sinkref::cli {

/// What --certify hands to a study. Throws InputError where this build cannot certify.
Prover prover_for(const Model& model);

}  // namespace sinkref::cli
