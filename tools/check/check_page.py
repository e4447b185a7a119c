#!/usr/bin/env python3
"""Opens report.html in headless Chromium and looks for what a reader would trip over.

  tools/check/check_page.py build/report [--screenshots DIR]

Light and dark, wide, narrow, as a telephone and as a printed page's width: script errors, requests to the
network, figures or panels that are missing or empty, text that overlaps other text, leaves its figure or is
cut, letters below 12 pixels, a page wider than its window, section numbers that are not consecutive, captions
that name another number of panels, heat maps of one figure with several scales. Exit 0 if there is none, 1 if there is, 2 for bad input.
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

VIEWS = [(1280, "light"), (1280, "dark"), (380, "light"), (380, "dark"), (500, "light"), (720, "light"), (1000, "light")]
# Chromium's window is never narrower: a narrower view is a frame in it.
NARROWEST = 500

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
  const smallest = 11.9;  // pixels; 12 but for rounding
  [...document.querySelectorAll('h2')].map(h => h.textContent).filter(t => /^\d+\. /.test(t)).forEach((t, i) => {
    if (parseInt(t) !== i + 1) problems.push(`section "${t}" is the ${i + 1}th`);
  });
  const counts = ['', 'One', 'Two', 'Three', 'Four', 'Five', 'Six'];
  for (const figure of document.querySelectorAll('figure')) {
    const panels = figure.querySelectorAll('svg.panel'), caption = figure.querySelector('figcaption')?.textContent || '';
    const named = counts.indexOf((caption.match(/^(\w+) panels?\./) || [])[1]);
    if (named > 0 && named !== panels.length) problems.push(`figure ${figure.id} has ${panels.length} panels, its caption names ${named}`);
    if (/\b(Left|Right):/.test(caption)) problems.push(`figure ${figure.id}: its caption says left and right, which a narrow page has not`);
    const scales = new Set();
    for (const svg of panels) {
      const bar = svg.querySelector('path[d*="h12v"]');
      if (!bar) continue;
      const x = parseFloat(bar.getAttribute('d').slice(1)) + 16;
      scales.add([...svg.querySelectorAll('text')].filter(t => Math.abs(t.getAttribute('x') - x) < 0.2).map(t => t.textContent).join(' '));
    }
    if (scales.size > 1) problems.push(`figure ${figure.id} has heat maps of ${scales.size} scales: ${[...scales].join(' | ')}`);
  }
  for (const element of document.querySelectorAll('h1,h2,h3,p,td,th,code,summary,li,a,caption'))
    if (element.textContent.trim() && parseFloat(getComputedStyle(element).fontSize) < smallest)
      problems.push(`letters of ${getComputedStyle(element).fontSize}: "${element.textContent.slice(0, 40)}"`);
  for (const table of document.querySelectorAll('table')) {
    if (table.getBoundingClientRect().right > window.innerWidth + 1 && !table.closest('.scroll'))
      problems.push(`a table leaves the window: "${table.textContent.slice(0, 40)}"`);
  }
  let texts = 0;
  for (const svg of document.querySelectorAll('svg.panel')) {
    const frame = svg.getBoundingClientRect();
    if (frame.width < 100 || frame.height < 60) problems.push(`${name(svg)}: not visible`);
    if (!svg.querySelector('path.line,path.dot,path[class^="h"],path[class^="d"],rect')) problems.push(`${name(svg)}: shows no data`);
    const boxes = [...svg.querySelectorAll('text')].map(t => ({text: t.textContent, box: t.getBoundingClientRect()}));
    texts += boxes.length;
    const scale = frame.width / svg.viewBox.baseVal.width;
    if (12 * scale < smallest) problems.push(`${name(svg)}: letters of ${(12 * scale).toFixed(1)} pixels`);
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
  const found = JSON.stringify({problems, texts, ground});
  if (window.parent !== window) return window.parent.postMessage(found, '*');
  document.body.innerHTML = '';
  const out = document.createElement('pre');
  out.id = 'probe';
  out.textContent = found;
  document.body.append(out);
});
</script>
"""


FRAME = """<!doctype html><style>body{{margin:0}}iframe{{border:0;width:{width}px;height:{height}px}}</style>
<iframe src="{page}"></iframe><script>
window.addEventListener('message', e => {{
  document.body.innerHTML = '';
  const out = document.createElement('pre');
  out.id = 'probe';
  out.textContent = e.data;
  document.body.append(out);
}});
</script>
"""


def framed(page: Path, width: int, folder: Path, height: int = 900) -> Path:
    """The page as a window of this width shows it."""
    if width >= NARROWEST:
        return page
    frame = folder / "frame.html"
    frame.write_text(FRAME.format(page=page.as_uri(), width=width, height=height))
    return frame


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
        dom = browse(framed(copy, width, Path(folder)), width, scheme, "--dump-dom")
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
            with tempfile.TemporaryDirectory() as folder:
                browse(framed(page, width, Path(folder), 8000), width, scheme,
                       f"--screenshot={arguments.screenshots.resolve()}/{width}_{scheme}.png",
                       f"--window-size={width},8000")
    if len(grounds) != 2:
        print(f"light and dark do not differ: {sorted(grounds)}")
        bad += 1
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
