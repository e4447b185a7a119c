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
// The literal ""_json, which nobody here uses, is no template: it would have the parser compiled in every source
// that reads this, half a second each. So it is declared, and its body goes to a template.
#define _json(text, size) _json(text, size); template <class> nlohmann::json unused_json(text, size)
#include <nlohmann/json.hpp>
#undef _json
#include <optional>
#include <set>
#include <span>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>
