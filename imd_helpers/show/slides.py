"""Pictures behind a slider that needs no server: it works in a built page as in a notebook."""

from __future__ import annotations

import io
from base64 import b64encode
from collections.abc import Callable, Sequence
from html import escape

import numpy as np

from ..runtime import InputError

# What the slider does: show one picture of its own figure, and say which.
MOVE = (
    "const all = this.closest('figure').querySelectorAll('img');"
    "all.forEach((img, i) => (img.style.display = i == this.value ? '' : 'none'));"
    "this.nextElementSibling.textContent = all[this.value].title;"
)


def slides(
    draw: Callable[[np.ndarray, int], object],
    titles: Sequence[str],
    *,
    alt: str,
    panels: int = 1,
    size: tuple[float, float] = (6.4, 3.0),
) -> None:
    """Show one picture a title, chosen by a slider; the last one at first.

    Args:
        draw: draws picture i on axes (panels,).
        titles: what the slider says beside each picture.
        alt: what the pictures show, for those who cannot see them.
        panels: axes side by side.
        size: inches of each picture.

    Raises:
        InputError: no titles.
    """
    from IPython.display import HTML, display

    if not titles:
        raise InputError("slides of no titles: give one a picture")
    last = len(titles) - 1
    images = ""
    for i, title in enumerate(titles):
        png = _png(draw, i, panels, size)
        hidden = "" if i == last else "; display:none"
        images += (
            f'<img src="data:image/png;base64,{png}" title="{escape(title)}" '
            f'alt="{escape(alt)}; {escape(title)}" style="max-width:100%{hidden}">'
        )
    slider = f'<input type="range" max="{last}" value="{last}" aria-label="{escape(alt)}"'
    slider += f' style="width:60%" oninput="{escape(MOVE)}">'
    said = f"<output>{escape(titles[last])}</output>"
    display(HTML(f'<figure class="imd-slides">{images}<div>{slider} {said}</div></figure>'))


def _png(
    draw: Callable[[np.ndarray, int], object], i: int, panels: int, size: tuple[float, float]
) -> str:
    from matplotlib import pyplot as plt

    fig, axes = plt.subplots(1, panels, figsize=size, squeeze=False, layout="constrained")
    draw(axes[0], i)
    file = io.BytesIO()
    fig.savefig(file, format="png", dpi=80)
    plt.close(fig)
    return b64encode(file.getvalue()).decode()
