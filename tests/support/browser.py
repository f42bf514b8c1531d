"""Pages in headless Chromium, on machines that have it."""
import html
import json
import re
import shutil
import subprocess
from pathlib import Path


class Browser:
    """Use `Browser.found(work)`: None, and a line that says so, where no Chromium is installed."""

    def __init__(self, program: str, work: Path):
        self.command = [program, "--headless", "--no-sandbox", "--disable-gpu",
                        f"--user-data-dir={work / 'chromium'}"]

    @staticmethod
    def found(work: Path):
        program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
        if program:
            return Browser(program, work)
        print("no Chromium here: the page was not opened (apt-get install chromium)")
        return None

    def _run(self, page: Path, *options: str) -> subprocess.CompletedProcess:
        return subprocess.run([*self.command, *options, page.as_uri()], capture_output=True, text=True, timeout=120)

    def document(self, page: Path) -> str:
        """The page as it stands once it was read and its scripts ran."""
        return self._run(page, "--dump-dom").stdout

    def complaints(self, page: Path) -> str:
        """What the browser says on the way."""
        return self._run(page, "--enable-logging=stderr", "--dump-dom").stderr

    def picture(self, page: Path, to: Path, width: int = 1200, height: int = 1600, dark: bool = False) -> None:
        self._run(page, f"--screenshot={to}", f"--window-size={width},{height}", "--hide-scrollbars",
                  *(["--force-dark-mode", "--blink-settings=preferredColorScheme=0"] if dark else []))

    def plots(self, page: Path, copy: Path, width: int = 1200) -> list[dict]:
        """Every plot as it is laid out: width, height, its name, and the texts that leave it. Asked by a script in
        a copy of the page whose policy lets it in."""
        script = """<script>document.title = JSON.stringify([...document.querySelectorAll('svg')].map(svg => {
          const b = svg.getBoundingClientRect();
          return {width: b.width, height: b.height, name: svg.getAttribute('aria-label'), outside:
            [...svg.querySelectorAll('text')].filter(text => { const t = text.getBoundingClientRect();
              return t.left < b.left - 1 || t.right > b.right + 1 || t.top < b.top - 1 || t.bottom > b.bottom + 1;
            }).map(text => text.textContent)};}))</script>"""
        text = page.read_text()
        style = "style-src 'unsafe-inline'"
        copy.write_text(text.replace(style, f"{style}; script-src 'unsafe-inline'", 1)
                        .replace("</body>", script + "</body>"))
        shown = self._run(copy, f"--window-size={width},1600", "--dump-dom").stdout
        title = re.search(r"<title>(.*?)</title>", shown, re.S)
        return json.loads(html.unescape(title.group(1)))
