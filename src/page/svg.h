#pragma once

#include <cmath>
#include <string>
#include <vector>

#include "page/chart.h"

// What the kinds of plots share.

namespace sinkref::svg {

/// "12.5": one decimal, no sign of zero.
std::string px(double value);

/// A length of text, generously: no font is at hand to measure with.
double text_width(const std::string& text, double size = 12);

enum class Anchor { start, middle, end };
std::string text(double x, double y, const std::string& content, Anchor anchor = Anchor::start,
                 const char* css = "label");

/// Along an axis: centred at (x, y) and turned.
std::string turned_text(double x, double y, int degrees, const std::string& content);

/// A number as a tick shows it: 0.3, 250, 10000, 1e+06.
std::string tick_text(double value);

/// Where an axis begins and ends, and what is written along it.
struct Scale {
  bool logarithmic = false;
  double low = 0, high = 1;     ///< in values
  double from = 0, to = 1;      ///< in pixels
  std::vector<double> ticks;

  double operator()(double value) const;
  bool shows(double value) const { return std::isfinite(value) && (!logarithmic || value > 0); }
};
/// The smallest scale with round ends that holds all the values that it can show.
Scale scale_for(const std::vector<double>& values, bool logarithmic, double from, double to);

/// The path of a marker; shapes repeat after marker_shapes.
inline constexpr size_t marker_shapes = 6;
std::string marker(size_t shape, double x, double y);

/// Names with their marks in rows; returns the height used.
double legend(std::string& out, const std::vector<Series>& series, double x, double y,
              double width);

std::string open_plot(const std::string& title, double x, double y);

std::string draw(const LineChart& chart, double x, double y);
std::string draw(const HeatMap& map, double x, double y);
std::string draw(const Grid& grid, double x, double y);

}  // namespace sinkref::svg
