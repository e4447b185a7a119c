#include "base/progress.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>

namespace sinkref {

namespace {

constexpr double seconds_between_renewals = 0.1;

double steady_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// What fits one line of the terminal on stderr: a longer one could not be renewed in place.
std::string fitting(const std::string& line) {
  winsize size{};
  const size_t columns = ::ioctl(2, TIOCGWINSZ, &size) == 0 && size.ws_col > 8 ? size.ws_col - 1u : 79u;
  size_t characters = 0, end = 0;
  for (; end < line.size(); ++end) {
    if ((static_cast<unsigned char>(line[end]) & 0xc0) != 0x80 && ++characters > columns) break;
  }
  return line.substr(0, end);
}

}  // namespace

Progress::Progress(bool terminal, Out out, Clock clock)
    : terminal_(terminal), out_(std::move(out)), clock_(std::move(clock)), start_(clock_()) {}

Progress Progress::to_stderr() {
  return {isatty(2) == 1, [](const std::string& text) { std::fputs(text.c_str(), stderr); }, steady_seconds};
}

Progress::~Progress() { finish(); }

void Progress::step(const std::string& text, double work) {
  before_ += work_;
  work_ = work;
  share_ = 0;
  const bool begins = text != text_;
  text_ = text;
  show(begins);
}

void Progress::share(double done, const std::string& text) {
  share_ = std::clamp(done, share_, 1.0);  // a step of several runs does not go back
  if (!text.empty()) text_ = text;
  show(false);
}

void Progress::settle(double done) {
  before_ = done;
  work_ = share_ = 0;
}

void Progress::finish() {
  if (line_open_ && out_) out_("\r\033[K");
  line_open_ = false;
}

double Progress::left() const {
  const double done = this->done();
  if (!(all_ > 0) || done < 0.02 * all_ || elapsed() < 0.5) return -1;
  return elapsed() * std::max(0.0, all_ - done) / done;
}

std::string Progress::duration(double seconds) {
  char text[32];
  if (seconds < 90) std::snprintf(text, sizeof text, "%.0f s", seconds);
  else if (seconds < 5400) std::snprintf(text, sizeof text, "%.0f min", seconds / 60);
  else std::snprintf(text, sizeof text, "%.1f h", seconds / 3600);
  return text;
}

void Progress::show(bool begins) {
  if (!out_) return;
  const double now = elapsed();
  const double wait = terminal_ ? seconds_between_renewals : seconds_between_lines;
  if (!begins && last_shown_ >= 0 && now - last_shown_ < wait) return;
  last_shown_ = now;
  // A step may turn out to be worth more than was planned.
  char percent[16];
  std::snprintf(percent, sizeof percent, "%3.0f %%", all_ > 0 ? std::min(100.0, 100 * done() / all_) : 0.0);
  const double seconds = left();
  const std::string line = percent + (seconds < 0 ? std::string() : ", " + duration(seconds) + " left") + ": " + text_;
  out_(terminal_ ? "\r" + fitting(line) + "\033[K" : line + "\n");
  line_open_ = terminal_;
}

}  // namespace sinkref
