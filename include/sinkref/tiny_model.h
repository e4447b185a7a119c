#pragma once

#include <filesystem>

namespace sinkref {

/// The tiny random model that comes with sinkref, so that everything runs with no network: of the source
/// tree or the prefix that the running program lies in, or else of the prefix that sinkref was configured
/// for. Throws InputError where none of them has it.
std::filesystem::path tiny_model();

}  // namespace sinkref
