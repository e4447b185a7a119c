#pragma once

// SINKREF_CHECK(a, relation, b): std::logic_error with both values unless they stand in that relation,
// as in SINKREF_CHECK(x.cols, ==, w.cols). It is for what only a defect of the caller can break, where a
// release build would overrun memory unseen. Builds with meson's -Dchecks=true have it; in others it is
// no code at all.

#ifdef SINKREF_CHECKS

#include <stdexcept>
#include <string>

namespace sinkref {

template <class A, class B>
[[noreturn, gnu::noinline, gnu::cold]] void check_failed(const char* file, int line, const char* expected,
                                                        const A& a, const B& b) {
  std::string place = file;
  place.erase(0, place.find_last_of('/') + 1);
  throw std::logic_error(place + ":" + std::to_string(line) + ": expected " + expected + ", found " +
                         std::to_string(a) + " and " + std::to_string(b));
}

}  // namespace sinkref

#define SINKREF_CHECK(a, relation, b) \
  ((a)relation(b) ? void()            \
                  : ::sinkref::check_failed(__FILE__, __LINE__, #a " " #relation " " #b, a, b))

#else

#define SINKREF_CHECK(a, relation, b) static_cast<void>(sizeof((a)relation(b)))

#endif
