#pragma once

#include "cli/options.h"

namespace sinkref::cli {

int info(const Options& options);
int tokenize(const Options& options);
int generate(const Options& options);
int trace(const Options& options);
int sink(const Options& options);
int verify(const Options& options);
int first_layer(const Options& options);
int report(const Options& options);
int bench(const Options& options);
int eval(const Options& options);
int verify_self(const Options& options);

}  // namespace sinkref::cli
