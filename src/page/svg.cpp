#include "page/svg.h"

#include <algorithm>
#include <cstdio>
#include <limits>

namespace sinkref::svg {

std::string px(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f", value + 0.0);
  std::string s = text;
  if (s.ends_with(".0")) s.resize(s.size() - 2);
  return s == "-0" ? "0" : s;
}

double text_width(const std::string& text, double size) {
  const auto starts_character = [](unsigned char c) { return (c & 0xc0) != 0x80; };
  return 0.6 * size *
         static_cast<double>(std::count_if(text.begin(), text.end(), starts_character));
}

std::string text(double x, double y, const std::string& content, Anchor anchor, const char* css) {
  const char* where = anchor == Anchor::start    ? ""
                      : anchor == Anchor::middle ? " text-anchor=\"middle\""
                                                 : " text-anchor=\"end\"";
  return "<text class=\"" + std::string(css) + "\" x=\"" + px(x) + "\" y=\"" + px(y) + "\"" + where +
         ">" + escaped(content) + "</text>\n";
}

std::string turned_text(double x, double y, int degrees, const std::string& content) {
  return "<text class=\"label\" transform=\"translate(" + px(x) + " " + px(y) + ") rotate(" +
         std::to_string(degrees) + ")\" text-anchor=\"middle\">" + escaped(content) + "</text>\n";
}

std::string tick_text(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.4g", std::fabs(value) < 1e-12 ? 0.0 : value);
  if (std::fabs(value) >= 1e4 && std::fabs(value) < 1e6) std::snprintf(text, sizeof text, "%.0f", value);
  return text;
}

double Scale::operator()(double value) const {
  const double share = logarithmic
                           ? (std::log10(value) - std::log10(low)) / (std::log10(high) - std::log10(low))
                           : (value - low) / (high - low);
  return from + std::clamp(share, 0.0, 1.0) * (to - from);
}

namespace {

/// 1, 2 or 5 times a power of ten: at most `count` steps over the range.
double round_step(double range, double count) {
  const double power = std::pow(10, std::floor(std::log10(range / count)));
  for (double step : {1.0, 2.0, 5.0})
    if (step * power * count >= range) return step * power;
  return 10 * power;
}

/// The ends always, and between them what is not too near to one.
void set_logarithmic_ticks(Scale& scale) {
  const double decades = std::log10(scale.high / scale.low);
  const int every = decades > 6 ? 2 : 1;
  const auto near_an_end = [&](double tick) {
    return std::min(std::log10(tick / scale.low), std::log10(scale.high / tick)) < 0.08 * decades;
  };
  int number = 0;
  scale.ticks.push_back(scale.low);
  for (double power = std::pow(10, std::floor(std::log10(scale.low) + 1e-9));
       power <= scale.high * 1.0001; power *= 10, ++number)
    for (double digit : {1.0, 2.0, 5.0}) {
      if (digit > 1 && decades > 2) continue;
      const double tick = digit * power;
      if (!near_an_end(tick) && tick > scale.low && tick < scale.high && number % every == 0)
        scale.ticks.push_back(tick);
    }
  scale.ticks.push_back(scale.high);
}

/// The next of 1, 2, 5, 10, … times a power of ten below (or above) a value.
double round_logarithmic(double value, bool up) {
  const double power = std::pow(10, std::floor(std::log10(value)));
  const double digits[] = {1, 2, 5, 10};
  if (up) {
    for (double digit : digits)
      if (digit * power >= value * 0.9999) return digit * power;
  } else {
    for (size_t i = std::size(digits); i-- > 0;)
      if (digits[i] * power <= value * 1.0001) return digits[i] * power;
  }
  return value;
}

}  // namespace

Scale scale_for(const std::vector<double>& values, bool logarithmic, double from, double to) {
  Scale scale{logarithmic, std::numeric_limits<double>::infinity(),
              -std::numeric_limits<double>::infinity(), from, to, {}};
  for (double value : values)
    if (scale.shows(value)) {
      scale.low = std::min(scale.low, value);
      scale.high = std::max(scale.high, value);
    }
  if (!(scale.low <= scale.high)) scale.low = scale.high = 1;
  if (logarithmic) {
    scale.low = round_logarithmic(scale.low, false);
    scale.high = round_logarithmic(scale.high, true);
    if (!(scale.low < scale.high)) scale.high = scale.low * 10;
    set_logarithmic_ticks(scale);
    return scale;
  }
  if (scale.low == scale.high) scale.high = scale.low + (scale.low == 0 ? 1 : std::fabs(scale.low));
  const double step = round_step(scale.high - scale.low, 6);
  scale.low = std::floor(scale.low / step + 1e-9) * step;
  scale.high = std::ceil(scale.high / step - 1e-9) * step;
  for (double tick = scale.low; tick < scale.high + step / 2; tick += step)
    scale.ticks.push_back(tick);
  return scale;
}

std::string marker(size_t shape, double x, double y) {
  const auto from = [&](double dx, double dy) { return "M" + px(x + dx) + " " + px(y + dy); };
  switch (shape % marker_shapes) {
    case 0: return from(-3, 0) + "a3 3 0 1 0 6 0a3 3 0 1 0 -6 0z";
    case 1: return from(-2.8, -2.8) + "h5.6v5.6h-5.6z";
    case 2: return from(0, -3.9) + "l3.6 6.4h-7.2z";
    case 3: return from(0, -4.2) + "l3.5 4.2l-3.5 4.2l-3.5 -4.2z";
    case 4: return from(0, 3.9) + "l3.6 -6.4h-7.2z";
    default: return from(-1.2, -4) + "h2.4v2.8h2.8v2.4h-2.8v2.8h-2.4v-2.8h-2.8v-2.4h2.8z";
  }
}

double legend(std::string& out, const std::vector<Series>& series, double x, double y,
              double width) {
  constexpr double swatch = 22, gap = 16, row = 17;
  double at = x, line = y;
  size_t named = 0;
  for (size_t i = 0; i < series.size(); ++i) {
    const Series& s = series[i];
    if (s.name.empty()) continue;
    const double needed = swatch + 5 + text_width(s.name);
    if (at > x && at + needed > x + width) {
      at = x;
      line += row;
    }
    const std::string colour = "c" + std::to_string(s.colour % 8);
    if (s.mark != Series::Mark::dots)
      out += "<path class=\"line " + colour + (s.mark == Series::Mark::dashed ? " dashed" : "") +
             "\" d=\"M" + px(at) + " " + px(line - 4) + "h" + px(swatch) + "\"/>\n";
    if (series.size() > 1 || s.mark == Series::Mark::dots)
      out += "<path class=\"" + std::string(s.mark == Series::Mark::dashed ? "hollow " : "dot ") + colour +
             "\" d=\"" + marker(i, at + swatch / 2, line - 4) + "\"/>\n";
    out += text(at + swatch + 5, line, s.name);
    at += needed + gap;
    ++named;
  }
  return named == 0 ? 0 : line - y + row;
}

std::string open_plot(const std::string& title, double x, double y) {
  const std::string place =
      x == 0 && y == 0 ? "" : " x=\"" + px(x) + "\" y=\"" + px(y) + "\"";
  return "<svg xmlns=\"http://www.w3.org/2000/svg\" role=\"img\" class=\"panel\"" + place +
         " width=\"" + px(plot_width) + "\" height=\"" + px(plot_height) + "\" viewBox=\"0 0 " +
         px(plot_width) + " " + px(plot_height) + "\">\n<title>" + escaped(title) + "</title>\n" +
         text(8, 18, title, Anchor::start, "heading");
}

}  // namespace sinkref::svg
