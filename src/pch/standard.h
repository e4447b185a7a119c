// Precompiled, once per target: what most sources include, which costs more to read than the sources
// themselves. Nothing of the project's own, so that an edit compiles only what depends on it; every
// source still includes what it uses (meson's -Db_pch=false builds without this).

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iostream>
#include <limits>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <span>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>
