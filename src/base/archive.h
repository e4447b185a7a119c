#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <vector>

// Values as bytes and back, to the bit, for results that are to outlive the process. Aggregates are taken
// apart into their members by the compiler, so that a member that is added is kept without a word here.
// The bytes are for the program that wrote them: its byte order, its structs.

namespace sinkref::archive {

/// What was read is not what is being asked for.
struct Mismatch : std::runtime_error {
  Mismatch() : std::runtime_error("an archive of other values") {}
};

namespace detail {

struct Anything {
  template <class T>
  operator T() const;  // NOLINT: never called
};

template <class T, size_t... I>
constexpr bool takes(std::index_sequence<I...>) {
  return requires { T{(static_cast<void>(I), Anything())...}; };
}

/// The number of members of an aggregate: of so many initialisers at most.
template <class T, size_t N = 20>
constexpr size_t members() {
  if constexpr (takes<T>(std::make_index_sequence<N>())) return N;
  else return members<T, N - 1>();
}

/// References to the members.
template <class T>
auto tied(T& x) {
  constexpr size_t n = members<std::remove_const_t<T>>();
  static_assert(n >= 1 && n <= 16, "give tied() more cases");
#define SINKREF_TIE(N, ...)             \
  if constexpr (n == N) {               \
    auto& [__VA_ARGS__] = x;            \
    return std::tie(__VA_ARGS__);       \
  } else
  SINKREF_TIE(1, a)
  SINKREF_TIE(2, a, b)
  SINKREF_TIE(3, a, b, c)
  SINKREF_TIE(4, a, b, c, d)
  SINKREF_TIE(5, a, b, c, d, e)
  SINKREF_TIE(6, a, b, c, d, e, f)
  SINKREF_TIE(7, a, b, c, d, e, f, g)
  SINKREF_TIE(8, a, b, c, d, e, f, g, h)
  SINKREF_TIE(9, a, b, c, d, e, f, g, h, i)
  SINKREF_TIE(10, a, b, c, d, e, f, g, h, i, j)
  SINKREF_TIE(11, a, b, c, d, e, f, g, h, i, j, k)
  SINKREF_TIE(12, a, b, c, d, e, f, g, h, i, j, k, l)
  SINKREF_TIE(13, a, b, c, d, e, f, g, h, i, j, k, l, m)
  SINKREF_TIE(14, a, b, c, d, e, f, g, h, i, j, k, l, m, o)
  SINKREF_TIE(15, a, b, c, d, e, f, g, h, i, j, k, l, m, o, p)
  SINKREF_TIE(16, a, b, c, d, e, f, g, h, i, j, k, l, m, o, p, q)
  return std::tie();
#undef SINKREF_TIE
}

template <class T>
inline constexpr bool is_scalar = std::is_arithmetic_v<T> || std::is_enum_v<T>;

/// Of the type and its members' types: two structs of one size are told apart mostly.
template <class T>
constexpr char code() {
  if constexpr (std::is_floating_point_v<T>) return 'd';
  else if constexpr (std::is_same_v<T, bool>) return 'b';
  else if constexpr (is_scalar<T>) return 'i';
  else return 'a';
}

template <class T>
struct Vector : std::false_type {};
template <class T>
struct Vector<std::vector<T>> : std::true_type {};
template <class T>
struct Optional : std::false_type {};
template <class T>
struct Optional<std::optional<T>> : std::true_type {};
template <class T>
struct Array : std::false_type {};
template <class T, size_t N>
struct Array<std::array<T, N>> : std::true_type {};

}  // namespace detail

/// Appends `x`.
template <class T>
void write(std::string& out, const T& x) {
  using namespace detail;
  if constexpr (is_scalar<T>) {
    out.append(reinterpret_cast<const char*>(&x), sizeof x);
  } else if constexpr (std::is_same_v<T, std::string>) {
    write(out, uint64_t{x.size()});
    out += x;
  } else if constexpr (Vector<T>::value) {
    using E = typename T::value_type;
    static_assert(!std::is_same_v<E, bool>);
    out += code<E>();
    write(out, uint64_t{x.size()});
    if constexpr (is_scalar<E>) out.append(reinterpret_cast<const char*>(x.data()), x.size() * sizeof(E));
    else for (const E& e : x) write(out, e);
  } else if constexpr (Array<T>::value) {
    for (const auto& e : x) write(out, e);
  } else if constexpr (Optional<T>::value) {
    write(out, x.has_value());
    if (x) write(out, *x);
  } else {
    out += static_cast<char>(members<T>());
    std::apply([&](const auto&... member) { (write(out, member), ...); }, tied(x));
  }
}

/// Takes values off the front.
class Reader {
 public:
  explicit Reader(std::string_view bytes) : bytes_(bytes) {}

  template <class T>
  void read(T& x) {
    using namespace detail;
    if constexpr (is_scalar<T>) {
      std::memcpy(&x, take(sizeof x).data(), sizeof x);
    } else if constexpr (std::is_same_v<T, std::string>) {
      x = take(count());
    } else if constexpr (Vector<T>::value) {
      using E = typename T::value_type;
      if (take(1)[0] != code<E>()) throw Mismatch();
      const size_t n = count();
      if (n > bytes_.size()) throw Mismatch();  // every element has a byte at least
      x.resize(n);
      if constexpr (is_scalar<E>) {
        if (n > bytes_.size() / sizeof(E)) throw Mismatch();
        if (n > 0) std::memcpy(x.data(), take(n * sizeof(E)).data(), n * sizeof(E));
      } else {
        for (E& e : x) read(e);
      }
    } else if constexpr (Array<T>::value) {
      for (auto& e : x) read(e);
    } else if constexpr (Optional<T>::value) {
      bool there = false;
      read(there);
      x.reset();
      if (there) read(x.emplace());
    } else {
      if (take(1)[0] != static_cast<char>(members<T>())) throw Mismatch();
      std::apply([&](auto&... member) { (read(member), ...); }, tied(x));
    }
  }

  bool at_end() const { return bytes_.empty(); }

 private:
  size_t count() {
    uint64_t n = 0;
    read(n);
    return n;
  }
  std::string_view take(size_t n) {
    if (n > bytes_.size()) throw Mismatch();
    const std::string_view front = bytes_.substr(0, n);
    bytes_.remove_prefix(n);
    return front;
  }

  std::string_view bytes_;
};

}  // namespace sinkref::archive
