// Precompiled for the tests, see src/pch/standard.h.

#include <catch2/catch.hpp>

#include "../../src/pch/standard.h"
