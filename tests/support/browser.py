"""Pages in headless Chromium: screenshots, and what a script measures in them."""

import json
import re
import shutil
import subprocess
from html import escape
from pathlib import Path
from typing import Any

import pytest

MEASURE = """
addEventListener('load', () => {
  const found = {width: innerWidth, overflow: [], small: [], faint: [], cut: [], touching: [], drawings: 0};
  const said = element => `${element.tagName} ${element.textContent.trim().slice(0, 40)}`;
  document.querySelectorAll('details').forEach(one => one.open = true);
  const seen = element => element.checkVisibility({checkVisibilityCSS: true}) && element.getClientRects().length > 0;
  const rgba = text => {
    const parts = text.match(/[\\d.]+/g).map(Number);
    return {rgb: parts.slice(0, 3), alpha: parts.length > 3 ? parts[3] : 1};
  };
  const luminance = rgb => {
    const [r, g, b] = rgb.map(v => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = element => {
    for (; element; element = element.parentElement) {
      const colour = rgba(getComputedStyle(element).backgroundColor);
      if (colour.alpha === 1) return colour.rgb;
    }
    return [255, 255, 255];
  };
  const scrolls = element => {
    for (; element; element = element.parentElement)
      if (['auto', 'scroll', 'hidden'].includes(getComputedStyle(element).overflowX)) return true;
    return false;
  };
  if (document.documentElement.scrollWidth > innerWidth) found.overflow.push(document.documentElement.scrollWidth);
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node; node = walker.nextNode();) {
    const element = node.parentElement;
    if (!node.data.trim() || ['STYLE', 'SCRIPT', 'TITLE', 'title', 'OPTION'].includes(element.tagName)) continue;
    if (!seen(element)) continue;
    const style = getComputedStyle(element), box = element.getBoundingClientRect();
    if (box.right > innerWidth + 1 && !scrolls(element.parentElement)) found.overflow.push(said(element));
    const drawing = element.closest('svg');
    const scale = drawing ? drawing.getBoundingClientRect().width / drawing.viewBox.baseVal.width : 1;
    if (parseFloat(style.fontSize) * scale < 11) found.small.push(said(element));
    const ink = luminance(rgba(drawing ? style.fill : style.color).rgb), paper = luminance(ground(element));
    const contrast = (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
    if (contrast < 4.5) found.faint.push(`${said(element)} ${contrast.toFixed(2)}`);
  }
  for (const drawing of [...document.querySelectorAll('svg')].filter(seen)) {
    const all = drawing.getBoundingClientRect();
    if (all.width > 200 && all.height > 60) found.drawings++;
    const boxes = [...drawing.querySelectorAll('text')].map(one => [one, one.getBoundingClientRect()]);
    boxes.forEach(([one, a], index) => {
      if (a.left < all.left - 1 || a.right > all.right + 1 || a.top < all.top - 1 || a.bottom > all.bottom + 1)
        found.cut.push(said(one));
      for (const [other, b] of boxes.slice(index + 1))
        if (a.left < b.right && b.left < a.right && a.top + 3 < b.bottom && b.top + 3 < a.bottom)
          found.touching.push(`${said(one)} | ${said(other)}`);
    });
  }
  found.ground = ground(document.body);
  found.loaded = performance.getEntriesByType('resource').length;
  const told = document.createElement('script');
  told.type = 'application/json';
  told.id = 'measured';
  told.textContent = JSON.stringify(found).replaceAll('<', '\\\\u003c');
  parent.document.documentElement.append(told);
});
"""
"""What is wrong with a page to look at: text that leaves the page, is below 11 px, has less contrast than WCAG asks
(4.5), is cut off in a drawing or touches another there."""


def chromium() -> str:
    """The browser; skips the test where there is none."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("no Chromium on this machine")
    return found


def run(page: Path, folder: Path, width: int, scheme: str, *flags: str, height: int = 900) -> str:
    """What a headless browser prints, of a page that is `width` wide; `scheme` is dark or light.

    The page lies in a frame, because no window is narrower than 500 pixels; what it needs is found as before.
    """
    quiet = ["--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync", "--disable-background-networking"]
    command = [chromium(), "--headless", "--no-sandbox", *quiet, "--disable-component-update", "--hide-scrollbars"]
    command += [f"--user-data-dir={folder}/browser", "--allow-file-access-from-files"]
    command += [f"--blink-settings=preferredColorScheme={0 if scheme == 'dark' else 1}"]
    text = escape(page.read_text(encoding="utf-8").replace("</body>", f"<script>{MEASURE}</script></body>"))
    style = f"border: 0; width: {width}px; height: {height}px"
    frame = page.with_name(f"{page.stem}.frame.html")
    begin = '<!doctype html><meta charset="utf-8"><body style="margin: 0">'
    frame.write_text(f'{begin}<iframe style="{style}" srcdoc="{text}"></iframe>', encoding="utf-8")
    command += [f"--window-size={max(width, 500)},{height}", *flags, frame.as_uri()]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    finally:
        frame.unlink()


def measured(page: Path, folder: Path, width: int, scheme: str) -> dict[str, Any]:
    """What `MEASURE` finds in a page."""
    dom = run(page, folder, width, scheme, "--dump-dom")
    (told,) = re.findall(r'<script type="application/json" id="measured">(.*?)</script>', dom, re.DOTALL)
    found: dict[str, Any] = json.loads(told)
    return found


def screenshot(page: Path, shot: Path, folder: Path, width: int, scheme: str, height: int = 900) -> None:
    """A picture of the page, PNG."""
    run(page, folder, width, scheme, f"--screenshot={shot}", height=height)
