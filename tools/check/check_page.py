#!/usr/bin/env python3
"""Opens report.html in headless Chromium and looks for what a reader would trip over.

  tools/check/check_page.py build/report [--screenshots DIR]

Light and dark, wide, narrow and as a printed page's width: script errors, requests to the network,
figures or panels that are missing or empty, text that overlaps other text, leaves its figure or is
cut, a page wider than its window. Exit 0 if there is none, 1 if there is, 2 for bad input.
"""

from __future__ import annotations

import argparse
import html
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))

from figures import chromium

VIEWS = [(1280, "light"), (1280, "dark"), (500, "light"), (500, "dark"), (720, "light")]

# Runs inside a copy of the page. Boxes are shrunk by a pixel: touching is no overlap.
PROBE = r"""
<script>
window.problems = [];
window.addEventListener('error', e => window.problems.push('script error: ' + (e.message || e.target.outerHTML)), true);
</script>
"""
REPORTER = r"""
<script>
window.addEventListener('load', () => {
  const problems = window.problems;
  const name = svg => svg.querySelector('title')?.textContent || '?';
  for (const details of document.querySelectorAll('details')) details.open = true;
  if (document.documentElement.scrollWidth > window.innerWidth + 1)
    problems.push(`the page is ${document.documentElement.scrollWidth} wide in a window of ${window.innerWidth}`);
  for (const figure of document.querySelectorAll('figure')) {
    const panels = figure.querySelectorAll('svg.panel');
    if (!panels.length) problems.push(`figure ${figure.id} has no panel`);
    if (!figure.querySelector('figcaption')?.textContent.trim()) problems.push(`figure ${figure.id} has no caption`);
  }
  let texts = 0;
  for (const svg of document.querySelectorAll('svg.panel')) {
    const frame = svg.getBoundingClientRect();
    if (frame.width < 100 || frame.height < 60) problems.push(`${name(svg)}: not visible`);
    if (!svg.querySelector('path.line,circle.dot,path[class^="h"],rect')) problems.push(`${name(svg)}: shows no data`);
    const boxes = [...svg.querySelectorAll('text')].map(t => ({text: t.textContent, box: t.getBoundingClientRect()}));
    texts += boxes.length;
    for (const {text, box} of boxes) {
      if (box.left < frame.left - 1 || box.right > frame.right + 1 || box.top < frame.top - 1 || box.bottom > frame.bottom + 1)
        problems.push(`${name(svg)}: "${text}" leaves the figure`);
      if (/NaN|undefined|inf\b/.test(text)) problems.push(`${name(svg)}: "${text}" is no number`);
    }
    for (let i = 0; i < boxes.length; ++i)
      for (let k = i + 1; k < boxes.length; ++k) {
        const a = boxes[i].box, b = boxes[k].box;
        if (Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1 &&
            Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 3)
          problems.push(`${name(svg)}: "${boxes[i].text}" overlaps "${boxes[k].text}"`);
      }
  }
  for (const element of document.querySelectorAll('h1,h2,h3,p,td,th,code,summary')) {
    if (element.scrollWidth > element.clientWidth + 1 && element.clientWidth > 0 && getComputedStyle(element).display !== 'inline')
      problems.push(`cut: "${element.textContent.slice(0, 60)}"`);
  }
  for (const link of document.querySelectorAll('a[href^="#"]'))
    if (!document.getElementById(link.getAttribute('href').slice(1))) problems.push(`link to nothing: ${link.getAttribute('href')}`);
  for (const r of performance.getEntriesByType('resource'))
    if (!r.name.startsWith('data:')) problems.push(`loads ${r.name}`);
  const ground = getComputedStyle(document.body).backgroundColor;
  document.body.innerHTML = '';
  const out = document.createElement('pre');
  out.id = 'probe';
  out.textContent = JSON.stringify({problems, texts, ground});
  document.body.append(out);
});
</script>
"""


def browse(page: Path, width: int, scheme: str, *more: str) -> str:
    command = [chromium(), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
               f"--blink-settings=preferredColorScheme={0 if scheme == 'dark' else 1}",
               f"--window-size={width},900", "--timeout=60000", *more, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=180, check=True).stdout


def probe(page: Path, width: int, scheme: str) -> dict:
    source = page.read_text()
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "page.html"
        copy.write_text(source.replace("<head>", "<head>" + PROBE, 1).replace("</body>", REPORTER + "</body>", 1))
        dom = browse(copy, width, scheme, "--dump-dom")
    found = re.search(r'<pre id="probe">(.*?)</pre>', dom, re.S)
    if not found:
        return {"problems": ["the page did not finish loading"], "texts": 0, "ground": "?"}
    return json.loads(html.unescape(found.group(1)))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="the --out folder of sinkref report")
    parser.add_argument("--screenshots", type=Path, help="folder to keep pictures of every view in")
    arguments = parser.parse_args()
    page = (arguments.folder / "report.html").resolve()
    if not page.is_file():
        print(f"check_page.py: {page}: no such file", file=sys.stderr)
        return 2
    bad, grounds = 0, set()
    source = page.read_text()
    for outside in re.findall(r'(?:src|href)="((?:https?:)?//[^"]*)"', re.sub(r'<a [^>]*>', "", source)):
        print(f"loads from the network: {outside}")
        bad += 1
    for width, scheme in VIEWS:
        result = probe(page, width, scheme)
        grounds.add((scheme, result["ground"]))
        print(f"{width} wide, {scheme}: {result['texts']} texts in figures, {len(result['problems'])} problems")
        for problem in sorted(set(result["problems"])):
            print("  " + problem)
        bad += len(result["problems"]) + (result["texts"] == 0)
        if arguments.screenshots:
            arguments.screenshots.mkdir(parents=True, exist_ok=True)
            browse(page, width, scheme, f"--screenshot={arguments.screenshots.resolve()}/{width}_{scheme}.png",
                   f"--window-size={width},8000")
    if len(grounds) != 2:
        print(f"light and dark do not differ: {sorted(grounds)}")
        bad += 1
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
