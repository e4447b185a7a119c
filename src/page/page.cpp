#include "page/page.h"

#include <algorithm>
#include <stdexcept>

namespace sinkref {

namespace {

constexpr const char* page_style = R"(
:root{color-scheme:light dark;--ink:#1d232b;--soft:#4a5460;--ground:#fff;--panel:#f6f7f9;--edge:#d9dee5;--link:#1f5f9e}
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--ink);font:16px/1.55 system-ui,sans-serif}
main,header,footer{max-width:1060px;margin:0 auto;padding:0 20px}
header{padding-top:28px}
h1{font-size:1.7rem;line-height:1.25;margin:0 0 .3em}
h2{font-size:1.3rem;margin:2.4em 0 .4em;padding-top:.6em;border-top:1px solid var(--edge)}
h3{font-size:1.05rem;margin:1.6em 0 .3em}
p{max-width:46em;margin:.5em 0}
a{color:var(--link)}
nav a{display:inline-block;margin:0 .9em .3em 0}
.facts{color:var(--soft);font-size:.88rem;overflow-wrap:anywhere}
.facts b{font-weight:600}
code{font:.86em/1.4 ui-monospace,monospace;background:var(--panel);padding:.1em .35em;border-radius:4px;overflow-wrap:anywhere}
.scroll{overflow-x:auto}
table{border-collapse:collapse;font-size:.92rem;margin:.6em 0}
caption{text-align:left;font-weight:600;padding:.3em 0}
th,td{text-align:left;vertical-align:top;padding:.4em .8em .4em 0;border-bottom:1px solid var(--edge)}
th{font-weight:600}
.findings{width:100%}
.findings td:first-child{font-weight:600;width:27%}
.findings td:last-child{color:var(--soft);font-size:.86rem;width:27%}
.findings p{margin:0 0 .35em}
.control{color:var(--soft)}
.notes{background:var(--panel);border-radius:8px;padding:.6em 1em;max-width:60em;font-size:.92rem}
figure{margin:1em 0 1.6em}
.panels{display:grid;grid-template-columns:repeat(auto-fit,minmax(460px,1fr));gap:14px;overflow-x:auto}
.panels svg.panel{width:100%;min-width:460px;height:auto;background:var(--panel);border-radius:8px}
.panels svg.panel:only-child{max-width:620px}
figcaption{color:var(--soft);font-size:.9rem;max-width:60em}
.numbers td{font-variant-numeric:tabular-nums}
details summary{cursor:pointer;color:var(--soft);font-size:.92rem}
footer{padding-top:2em;padding-bottom:3em;color:var(--soft);font-size:.9rem}
@media(max-width:640px){.findings,.findings tbody,.findings tr,.findings td{display:block;width:auto!important}
.findings thead{display:none}.findings td{border:0;padding:.1em 0}.findings tr{border-bottom:1px solid var(--edge);padding:.7em 0;display:block}}
)";

constexpr const char* dark_style =
    ":root{--ink:#e6e9ee;--soft:#b3bcc8;--ground:#12161b;--panel:#1a2027;--edge:#333c47;"
    "--link:#7fb8f0}\n";

constexpr const char* print_style =
    "@media print{nav,.download{display:none}figure,tr{break-inside:avoid}details{display:block}"
    "body{font-size:11pt}.panels{grid-template-columns:1fr}.panels svg.panel{max-width:560px}h2{break-after:avoid}}\n";

std::string base64(const std::string& bytes) {
  constexpr char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  out.reserve(bytes.size() * 4 / 3 + 4);
  for (size_t i = 0; i < bytes.size(); i += 3) {
    const auto byte = [&](size_t k) {
      return i + k < bytes.size() ? static_cast<unsigned char>(bytes[i + k]) : 0u;
    };
    const unsigned group = byte(0) << 16 | byte(1) << 8 | byte(2);
    for (size_t k = 0; k < 4; ++k)
      out += i + k > bytes.size() ? '=' : digits[group >> (18 - 6 * k) & 63];
  }
  return out;
}

std::string download(const std::string& name, const std::string& type, const std::string& bytes) {
  return "<a class=\"download\" download=\"" + escaped(name) + "\" href=\"data:" + type +
         ";base64," + base64(bytes) + "\">" + escaped(name) + "</a>";
}

std::string findings_table(const std::vector<Finding>& findings) {
  std::string out =
      "<table class=\"findings\"><thead><tr><th>Question</th><th>Finding</th><th>How it is "
      "decided</th></tr></thead><tbody>\n";
  for (const Finding& f : findings)
    out += "<tr><td><a href=\"#" + f.section + "\">" + escaped(f.question) + "</a></td><td><p>" +
           escaped(f.answer) + "</p>" +
           (f.control.empty() ? "" : "<p class=\"control\">Control: " + escaped(f.control) + "</p>") +
           "</td><td>" + escaped(f.how) + "</td></tr>\n";
  return out + "</tbody></table>\n";
}

std::string figure_html(const Figure& figure) {
  std::string out = "<figure id=\"" + figure.id + "\">\n<h3>" + escaped(figure.title) +
                    "</h3>\n<div class=\"panels\">\n";
  for (const Plot& plot : figure.plots) out += plot_svg(plot);
  out += "</div>\n<figcaption><p>" + escaped(figure.caption) + "</p>\n";
  if (!figure.command.empty())
    out += "<p>Numbers: <code>" + escaped(figure.command) + "</code>" +
           (figure.input.empty() ? "" : " The ids are " + escaped(figure.input) + ".") + "</p>\n";
  return out + "<p class=\"download\">" + download(figure.id + ".csv", "text/csv", figure_csv(figure)) +
         "</p></figcaption>\n</figure>\n";
}

std::string table_html(const Table& table) {
  std::string out = "<table class=\"numbers\"><caption>" + escaped(table.caption) +
                    "</caption><thead><tr>";
  for (const std::string& head : table.head) out += "<th>" + escaped(head) + "</th>";
  out += "</tr></thead><tbody>\n";
  for (const std::vector<std::string>& row : table.rows) {
    out += "<tr>";
    for (const std::string& cell : row) out += "<td>" + escaped(cell) + "</td>";
    out += "</tr>\n";
  }
  out = "<div class=\"scroll\">" + out + "</tbody></table></div>\n";
  if (!table.listing || table.rows.size() <= 12) return out;
  return "<details><summary>" + escaped(table.caption) + " (" + std::to_string(table.rows.size()) +
         " lines)</summary>" + out + "</details>\n";
}

std::string notes_html(const std::vector<std::string>& notes) {
  if (notes.empty()) return "";
  std::string out = "<div class=\"notes\" id=\"notes\"><p>Notes of what reads the model's files:</p><ul>";
  for (const std::string& note : notes) out += "<li>" + escaped(note) + "</li>";
  return out + "</ul></div>\n";
}

std::string heading(const Section& section) {
  return (section.number == 0 ? "" : std::to_string(section.number) + ". ") + section.title;
}

std::string section_html(const Section& section) {
  std::string out = "<section id=\"" + section.id + "\">\n<h2>" + escaped(heading(section)) +
                    "</h2>\n<p>" + escaped(section.intro) + "</p>\n";
  for (const std::string& remark : section.remarks) out += "<p>" + escaped(remark) + "</p>\n";
  for (const Figure& figure : section.figures) out += figure_html(figure);
  for (const Table& table : section.tables) out += table_html(table);
  return out + "</section>\n";
}

}  // namespace

void Page::number_sections() {
  std::stable_sort(sections.begin(), sections.end(),
                   [](const Section& a, const Section& b) { return a.number < b.number; });
  for (size_t i = 0; i < sections.size(); ++i) sections[i].number = i + 1;
}

Section& Page::section(const std::string& id) {
  for (Section& section : sections)
    if (section.id == id) return section;
  throw std::out_of_range("the page has no section " + id);
}

std::string page_html(const Page& page) {
  std::string out =
      "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta "
      "name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n<title>" +
      escaped(page.title) + "</title>\n<link rel=\"icon\" href=\"data:,\">\n<style>" + page_style +
      chart_style(false) + "@media screen and (prefers-color-scheme:dark){\n" + dark_style +
      chart_style(true) + "}\n" + print_style + "</style>\n</head>\n<body>\n<header>\n<h1>" +
      escaped(page.title) + "</h1>\n<p>" + page.introduction + "</p>\n<p><code>" +
      escaped(page.command) + "</code></p>\n<p class=\"facts\">";
  for (const auto& [name, value] : page.facts)
    out += "<b>" + escaped(name) + "</b> " + escaped(value) + " &nbsp; ";
  out += "</p>\n<p class=\"download\">All numbers: " + download("report.json", "application/json", page.json) +
         "</p>\n" + notes_html(page.notes) + "</header>\n<main>\n<section id=\"findings\">\n<h2>Findings</h2>\n" +
         findings_table(page.findings) + "</section>\n<nav>";
  for (const Section& section : page.sections)
    out += "<a href=\"#" + section.id + "\">" + escaped(heading(section)) + "</a>";
  out += "</nav>\n";
  for (const Section& section : page.sections) out += section_html(section);
  return out +
         "</main>\n<footer><p>Every number is defined by sinkref's arithmetic and is the same, bit "
         "for bit, on any machine, kernel and number of threads.</p></footer>\n</body>\n</html>\n";
}

}  // namespace sinkref
