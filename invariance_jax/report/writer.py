"""Reads results, draws the figures, writes the page: the report's only output."""

import base64
import json
import pathlib
import shlex
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from invariance_jax.files import atomic_path, write_text
from invariance_jax.report import load, page, style
from invariance_jax.report.album import Picture, pictures

# A figure 11 inches wide then fills the page, and its text is as large as the page's.
_CSS_PIXELS_PER_INCH = 106


def write(
    directories: Sequence[str | pathlib.Path],
    output_dir: str | pathlib.Path,
    *,
    examples: Float[np.ndarray, "13 10 H W 3"] | None = None,
    command: str | None = None,
) -> pathlib.Path:
    """Writes `report.html`, which needs no other file, and its figures as PNG and PDF.

    Args:
        directories: Folders of results, each with `accuracy.csv` or `invariance/*.nc` or both.
        output_dir: Where `report.html` and `figures/` shall stand; made if absent.
        examples: One image under all transforms and magnitudes, float in [0, 1]; None leaves
            the figure out.
        command: The command line that makes the page, printed on it; None prints the call of
            this function.

    Returns:
        The path of the page.

    Raises:
        UserError: Something is wrong with a folder, a file or the examples.
    """
    results = load.read(directories)
    output = pathlib.Path(output_dir)
    with style.settings():
        drawn = [_draw(picture, output / "figures") for picture in pictures(results, examples)]
    path = output / "report.html"
    write_text(path, page.render(results, drawn, command or _call(directories, output)))
    return path


def _draw(picture: Picture, folder: pathlib.Path) -> page.Drawn:
    figure = picture.wide()
    png = style.save_png(figure)
    _write_bytes(folder / f"{picture.name}.png", png)
    _write_bytes(folder / f"{picture.name}.pdf", style.save_pdf(figure))
    return page.Drawn(
        name=picture.name,
        title=picture.title,
        caption=picture.caption,
        alternative=picture.alternative,
        wide=_data_uri(png),
        narrow=_data_uri(style.save_png(picture.narrow())),
        width=round(figure.get_figwidth() * _CSS_PIXELS_PER_INCH),
    )


def _write_bytes(path: pathlib.Path, content: bytes) -> None:
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def _data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"


def _call(directories: Sequence[str | pathlib.Path], output: pathlib.Path) -> str:
    folders = json.dumps([str(directory) for directory in directories])
    code = f"from invariance_jax import report; report.write({folders}, {json.dumps(str(output))})"
    return f"python -c {shlex.quote(code)}"
