"""Takes the README's picture of a report: the top of its page, as Chromium shows it.

    consilium-simulate demo --out runs/demo
    python docs/screenshots.py runs/demo

Needs Chromium or Google Chrome; Pillow comes with Matplotlib.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

from consilium.simulations.report.files import write_report

WIDTH, HEIGHT = 1100, 1900  # pixels: down to the first figure
COLOURS = 128  # enough for text and flat curves, and a third of the bytes
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
IMAGE = Path(__file__).parent / "images" / "report.png"


def main() -> None:
    """Write the picture and say how large it is."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("run", type=Path, help="folder of a run, such as the demo's")
    parser.add_argument("--out", type=Path, default=IMAGE, help=f"the picture; {IMAGE}")
    parser.add_argument("--height", type=int, default=HEIGHT, help=f"pixels; {HEIGHT}")
    chosen = parser.parse_args()
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        sys.exit(f"none of {', '.join(BROWSERS)} is installed; install one")
    with tempfile.TemporaryDirectory() as folder:
        page = write_report(chosen.run, Path(folder) / "report.html")
        shot = Path(folder) / "report.png"
        take(browser, page, shot, chosen.height)
        chosen.out.parent.mkdir(parents=True, exist_ok=True)
        save_small(shot, chosen.out)
    sys.stdout.write(f"{chosen.out}: {chosen.out.stat().st_size / 1000:.0f} kB\n")


def take(browser: str, page: Path, shot: Path, height: int) -> None:
    """Let the browser write what it shows of the page, from the top."""
    subprocess.run(  # noqa: S603 - the browser found above, on a page that was just written
        [
            browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
            f"--user-data-dir={page.parent / 'profile'}", f"--window-size={WIDTH},{height}",
            f"--screenshot={shot}", page.as_uri(),
        ],
        check=True, capture_output=True, timeout=120,
    )  # fmt: skip


def save_small(shot: Path, out: Path) -> None:
    """Save a picture with a palette of few colours, without dithering."""
    with Image.open(shot) as image:
        few = image.convert("RGB").quantize(
            COLOURS, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE
        )
        few.save(out, optimize=True)


if __name__ == "__main__":
    main()
