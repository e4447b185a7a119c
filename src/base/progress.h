#pragma once

#include <functional>
#include <string>

namespace sinkref {

/// Percent and time left over all of a long command's work, for a person who waits. The work is known
/// before in any unit (multiply-adds, characters): each step says what it is worth, and how far it is.
class Progress {
 public:
  using Out = std::function<void(const std::string&)>;
  using Clock = std::function<double()>;  ///< seconds

  Progress() = default;  ///< tells nobody
  /// On a terminal one line that renews itself; elsewhere a line for each step and each
  /// seconds_between_lines.
  Progress(bool terminal, Out out, Clock clock);
  /// To stderr.
  static Progress to_stderr();
  Progress(Progress&&) = default;
  ~Progress();

  /// The whole work. May be said again once it is known better: what is done stays done.
  void plan(double all) { all_ = all; }
  /// Begins a step: the one before is done.
  void step(const std::string& text, double work);
  /// Of the step, from 0 to 1. `text` in place of the step's, if it is not empty.
  void share(double done, const std::string& text = {});
  void end_step() { share_ = 1; }
  /// So much of the whole is done, whatever the steps were worth.
  void settle(double done);
  /// Work that need not be done after all: it says nothing about speed.
  void skip(double work) { all_ -= work; }
  /// The line of a terminal is cleared.
  void finish();

  double done() const { return before_ + share_ * work_; }
  double elapsed() const { return clock_ ? clock_() - start_ : 0; }
  /// Seconds; negative while too little is done to say.
  double left() const;
  /// "40 s", "12 min", "3.5 h"
  static std::string duration(double seconds);

  static constexpr double seconds_between_lines = 10;

 private:
  void show(bool begins);

  bool terminal_ = false, line_open_ = false;
  Out out_;
  Clock clock_;
  std::string text_;
  double start_ = 0, last_shown_ = -1;
  double all_ = 0, before_ = 0, work_ = 0, share_ = 0;
};

}  // namespace sinkref
