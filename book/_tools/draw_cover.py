"""Draw the cover of the book from results: real crystals, training, new crystals, the judge.

    python book/_tools/draw_cover.py

Writes `book/_assets/cover.png` for light pages and `cover-dark.png` for dark ones, and the same in
the format of a phone, `cover-phone.png` and `cover-phone-dark.png`. Each picture holds, as the PNG
text `Record`, which samples it shows and what its numbers are, so that a test can tell when the
weights or the results have changed since. One core needs a minute.
"""

from __future__ import annotations

import hashlib
import importlib
import itertools
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from bookfiles import REPO

import imd_helpers as imd
from imd_helpers.crystals import CrystalBatch, elements
from imd_helpers.datasets.store import CrystalSet
from imd_helpers.descriptors.symmetry_sites import (
    SPACE_GROUPS,
    canonical,
    decode_sites,
    find_sites,
)
from imd_helpers.matching import same as structure
from imd_helpers.show.drawn import Drawing, draw, edges
from imd_helpers.show.figures import element_colour

CHECKPOINTS = REPO / "data" / "checkpoints"
SEED = 2022  # of the 10,000 samples behind the shares in run.json
REAL = ("NbFeSb", "CsPbBr3", "MnAlCu2")  # one of each space group, all in the training split
NEW = ("ZrNiSn", "CsPbCl3", "NbAlCo2")  # one of each, of the samples found in the held-out data

DPI = 100
CELL_PX = 224  # side of the square that one crystal is drawn in
ANGSTROM_PX = 20.5  # all crystals to one scale
SUPERSAMPLE = 3
BALL, STICK, EDGE = 0.42, 0.11, 0.03  # share of the covalent radius; Å; Å
CALM = 0.2  # how far the elements' colours are drawn towards grey
COLOUR_STEP = 6  # of 255: coarser colours make smaller files, and nobody sees it
LIGHT = np.array([-0.45, 0.62, 0.64]) / np.linalg.norm([-0.45, 0.62, 0.64])


@dataclass(frozen=True)
class Theme:
    """Colours of the page that the picture lies on, as in `imd.css`; ``file`` ends its name."""

    file: str
    paper: str
    ink: str
    muted: str
    line: str
    fixed: str
    published: str
    plain: str
    dimmest: float  # how bright a ball is on the side away from the light


THEMES = (
    Theme(
        file=".png",
        paper="#fdfdfa",
        ink="#14231f",
        muted="#586662",
        line="#c3c9be",
        fixed="#0f6b5f",
        published="#b4531a",
        plain="#8f9a96",
        dimmest=0.42,
    ),
    Theme(
        file="-dark.png",
        paper="#14191b",
        ink="#f1f5f2",
        muted="#9eaba6",
        line="#465256",
        fixed="#6fd0be",
        published="#f0a46b",
        plain="#75827e",
        dimmest=0.62,
    ),
)


@dataclass(frozen=True)
class Layout:
    """Where the parts of a picture are, in pixels from its upper left corner.

    Attributes:
        file: what a theme's file is called in this layout.
        real, learn, new: centre of a part, and how far down it begins.
        arrows: left or upper ends of arrows of 40 pixels.
        bands: height of the first band, and from one to the next.
        columns: of the first and the last stage.
    """

    file: str
    width: int
    height: int
    real: tuple[int, int]
    learn: tuple[int, int]
    new: tuple[int, int]
    arrows: tuple[tuple[int, int], tuple[int, int]]
    bands: tuple[int, int]
    columns: tuple[int, int]

    @property
    def tall(self) -> bool:
        """Parts below each other, names above their bands."""
        return self.height > self.width


WIDE = Layout(
    file="cover",
    width=1600,
    height=700,
    real=(318, 0),
    learn=(800, 0),
    new=(1282, 0),
    arrows=((632, 215), (932, 215)),
    bands=(480, 43),
    columns=(330, 1410),
)
TALL = Layout(
    file="cover-phone",
    width=640,
    height=1580,
    real=(320, 0),
    learn=(320, 430),
    new=(320, 850),
    arrows=((320, 400), (320, 810)),
    bands=(1312, 46),
    columns=(300, 500),
)


# ---- what is shown


@dataclass(frozen=True)
class Record:
    """What the picture shows.

    Attributes:
        samples: places of the new crystals among the samples of the seed.
        formulas: of the new crystals.
        twins: places of the same crystals in `held_back`.
        passed: samples that pass the whole funnel.
        found: how many of these are the same as a crystal of the held-out splits.
        stages: of the funnel.
        shares: generator -> share of the samples that survives each stage.
        n: samples of each generator.
        margin: largest distance of a share from an end of its 95 % interval.
        weights: SHA-256 of the generator's weights.
    """

    samples: list[int]
    formulas: list[str]
    twins: list[int]
    passed: int
    found: int
    stages: list[str]
    shares: dict[str, list[float]]
    n: int
    margin: float
    weights: str


def judged() -> Record:
    """Judge the samples, and look for those that pass among the crystals held back in training.

    Raises:
        ValueError: a crystal of `NEW` is not among them.
    """
    make = checkpoint_script()
    decoded = imd.models.load("cubicgan").sample(make.N_JUDGED, seed=SEED)
    training = make.training_crystals()
    report = imd.judge.judge(decoded, protocol="funnel", training=training)
    passed = np.flatnonzero(report.passed)
    held = held_back()
    twin = structure.same_as_reference(decoded.crystals[passed], held.crystals).first
    found, twin = passed[twin != structure.NONE], twin[twin != structure.NONE]
    chosen = [most_stable(formula, held, twin) for formula in NEW]
    return Record(
        samples=found[chosen].tolist(),
        formulas=list(NEW),
        twins=twin[chosen].tolist(),
        passed=len(passed),
        found=len(found),
        **numbers(),
        weights=weights(),
    )


def most_stable(formula: str, held: CrystalSet, twin: np.ndarray) -> int:
    """Which of the crystals ``held[twin]`` has this formula, and is nearest to the convex hull.

    Raises:
        ValueError: none has this formula.
    """
    table = held.table.iloc[twin].reset_index(drop=True)
    some = table[table["formula"] == formula]
    if some.empty:
        formulas = ", ".join(sorted(table["formula"]))
        raise ValueError(f"no sample is the held-out {formula}: choose NEW from {formulas}")
    return int(some["energy_above_hull"].idxmin())


def held_back() -> CrystalSet:
    """The cubic ternaries that the generator was never shown."""
    data = imd.datasets.load("oqmd_icsd")
    return data.select(nelements=3, space_groups=SPACE_GROUPS, split=["val", "test"])


def numbers() -> dict[str, Any]:
    """Shares that survive each stage, n and the widest interval, as the judge recorded them."""
    baselines = json.loads((CHECKPOINTS / "cubicgan" / "baselines.json").read_text())
    tables = {
        "CubicGAN, fixed": run("fixed")["funnel"]["own labels"],
        "CubicGAN, paper": run("paper")["funnel"]["own labels"],
        "ion exchange": baselines["ion exchange"],
        "element substitution": baselines["substitution"],
        "random cubic crystals": baselines["random"],
    }
    rows = [row for table in tables.values() for row in table]
    (n,) = {row["n"] for row in rows}
    margin = max(max(row["high"] - row["share"], row["share"] - row["low"]) for row in rows)
    shares = {name: [row["share"] for row in table] for name, table in tables.items()}
    (stages,) = {tuple(row["stage"] for row in table) for table in tables.values()}
    return {"stages": list(stages), "shares": shares, "n": n, "margin": margin}


def weights() -> str:
    """SHA-256 of the weights that are there now."""
    path = imd.models.checkpoint_path("cubicgan")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def run(variant: str) -> dict[str, Any]:
    """The record of a training."""
    return json.loads((CHECKPOINTS / f"cubicgan-{variant}" / "run.json").read_text())


def checkpoint_script() -> ModuleType:
    """`experiments/cubicgan.py`, which says how the samples are judged."""
    sys.path.insert(0, str(REPO / "experiments"))
    try:
        return importlib.import_module("cubicgan")
    finally:
        sys.path.remove(str(REPO / "experiments"))


def samples(record: Record) -> CrystalBatch:
    """The new crystals that are shown."""
    everything = imd.models.load("cubicgan").sample(record.n, seed=SEED).crystals
    return everything[np.array(record.samples)]


def of_data(data: CrystalSet, formulas: Sequence[str]) -> CrystalBatch:
    """One cubic crystal of each formula, the most stable where there are several."""
    rows = []
    for formula in formulas:
        chosen = data.table[data.table["formula"] == formula]
        chosen = chosen[chosen["space_group"].isin(SPACE_GROUPS)]
        rows.append(chosen["energy_above_hull"].idxmin())
    return data[rows].crystals


def standard(crystals: CrystalBatch) -> CrystalBatch:
    """The same crystals in conventional cells with the same choice of origin."""
    sites, _ = find_sites(crystals)
    return decode_sites(canonical(sites)).crystals


# ---- balls and sticks, drawn ray by ray


class Canvas:
    """Colour and depth of each ray; what is nearer to the viewer covers what is behind.

    Rays run along -z through a square of ``side`` pixels; lengths are in Å.
    """

    def __init__(self, side: int, per_angstrom: float) -> None:
        centre = (side - 1) / 2
        steps = (np.arange(side) - centre) / per_angstrom
        self.x, self.y = steps, -steps  # row 0 is the top
        self.depth = np.full((side, side), -np.inf)
        self.normal = np.zeros((side, side, 3))
        self.colour = np.zeros((side, side, 3))
        self.shiny = np.zeros((side, side))

    def _window(self, low: np.ndarray, high: np.ndarray) -> tuple[slice, slice]:
        """Rows and columns of the rays that may hit what lies between two corners."""
        columns = np.searchsorted(self.x, [low[0], high[0]])
        rows = np.searchsorted(-self.y, [-high[1], -low[1]])
        return slice(*rows), slice(*columns)

    def _put(
        self,
        window: tuple[slice, slice],
        hit: np.ndarray,
        depth: np.ndarray,
        normal: np.ndarray,
        colour: np.ndarray,
        shiny: float,
    ) -> None:
        nearer = hit & (depth > self.depth[window])
        for target, value in (
            (self.depth, depth),
            (self.normal, normal),
            (self.colour, np.broadcast_to(colour, normal.shape)),
            (self.shiny, np.broadcast_to(shiny, depth.shape)),
        ):
            target[window][nearer] = value[nearer]

    def ball(self, centre: np.ndarray, radius: float, colour: np.ndarray) -> None:
        """A sphere."""
        window = self._window(centre - radius, centre + radius)
        dx, dy = np.meshgrid(self.x[window[1]] - centre[0], self.y[window[0]] - centre[1])
        rest = radius**2 - dx**2 - dy**2
        dz = np.sqrt(np.maximum(rest, 0))
        normal = np.stack([dx, dy, dz], axis=-1) / radius
        self._put(window, rest > 0, centre[2] + dz, normal, colour, 1.0)

    def rod(
        self, start: np.ndarray, end: np.ndarray, radius: float, colour: np.ndarray, shiny: float
    ) -> None:
        """A cylinder without caps: |d + t v| = radius across the axis, for each ray d + t z."""
        length = np.linalg.norm(end - start)
        axis = (end - start) / length
        window = self._window(np.minimum(start, end) - radius, np.maximum(start, end) + radius)
        dx, dy = np.meshgrid(self.x[window[1]] - start[0], self.y[window[0]] - start[1])
        d = np.stack([dx, dy, np.zeros_like(dx)], axis=-1)
        d_across = d - (d @ axis)[..., None] * axis
        v_across = np.array([0, 0, 1.0]) - axis[2] * axis
        a = max(v_across @ v_across, 1e-9)
        b, c = d_across @ v_across, (d_across**2).sum(-1) - radius**2
        rest = b**2 - a * c
        t = (-b + np.sqrt(np.maximum(rest, 0))) / a
        along = d @ axis + t * axis[2]
        hit = (rest > 0) & (along >= 0) & (along <= length)
        normal = (d_across + t[..., None] * v_across) / radius
        self._put(window, hit, start[2] + t, normal, colour, shiny)

    def shaded(self, paper: np.ndarray, dimmest: float) -> np.ndarray:
        """(side, side, 4) light from the upper left, dark rims, and paler with distance."""
        hit = np.isfinite(self.depth)
        bright = self.normal @ LIGHT
        half = LIGHT + np.array([0, 0, 1])
        gloss = np.maximum(self.normal @ (half / np.linalg.norm(half)), 0) ** 36
        rim = np.clip(self.normal[..., 2] / 0.45, 0, 1)
        level = (dimmest + (1.04 - dimmest) * np.clip(0.5 + 0.5 * bright, 0, 1) ** 1.6) * (
            0.72 + 0.28 * rim
        )
        colour = self.colour * level[..., None]
        colour += 0.55 * (self.shiny * gloss)[..., None] * (1 - colour)
        depth = np.where(hit, self.depth, np.nan)
        far = (np.nanmax(depth) - depth) / (np.nanmax(depth) - np.nanmin(depth))
        fade = np.nan_to_num(0.38 * far**1.2)[..., None]
        return np.concatenate([colour * (1 - fade) + paper * fade, hit[..., None]], axis=-1)


def view() -> np.ndarray:
    """(3, 3) turns crystal axes to right, up, towards the viewer; c points up."""
    turn, tilt = np.radians([-26.0, 15.0])
    about_c = np.array(
        [[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]]
    )
    upright = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])  # b points away from the viewer
    nod = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
    return nod @ upright @ about_c


def picture(drawing: Drawing, theme: Theme) -> np.ndarray:
    """(CELL_PX, CELL_PX, 4) one crystal, edges smoothed by averaging finer pixels."""
    canvas = Canvas(CELL_PX * SUPERSAMPLE, ANGSTROM_PX * SUPERSAMPLE)
    turn, centre = view(), drawing.lattice.sum(0) / 2
    place = (drawing.positions - centre) @ turn.T  # (atoms, 3)
    colours = np.array([rgb(element_colour(int(z))) for z in drawing.numbers])  # (atoms, 3)
    colours += CALM * (colours.mean(1, keepdims=True) - colours)
    for atom, radius in enumerate(BALL * elements.column("covalent_radius")[drawing.numbers]):
        canvas.ball(place[atom], radius, colours[atom])
    for atom, others in enumerate(drawing.sticks):
        for other in others:  # each end draws its own half
            middle = (place[atom] + place[other]) / 2
            canvas.rod(place[atom], middle, STICK, colours[atom], 0.5)
    for start, end in edges(drawing.lattice):
        corners = ((start - centre) @ turn.T, (end - centre) @ turn.T)
        canvas.rod(*corners, EDGE, rgb(theme.muted), 0.0)
    fine = canvas.shaded(rgb(theme.paper), theme.dimmest)
    fine[..., :3] *= fine[..., 3:]
    blocks = fine.reshape(CELL_PX, SUPERSAMPLE, CELL_PX, SUPERSAMPLE, 4).mean((1, 3))
    blocks[..., :3] /= np.maximum(blocks[..., 3:], 1e-9)
    return np.rint(255 * np.clip(blocks, 0, 1)).astype(np.uint8)


def rgb(colour: str) -> np.ndarray:
    """``#rrggbb`` as three numbers from 0 to 1."""
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255


# ---- the page


class Page:
    """A matplotlib figure addressed in pixels from the upper left corner."""

    def __init__(self, theme: Theme, layout: Layout) -> None:
        from matplotlib.figure import Figure

        self.theme, self.layout = theme, layout
        size = (layout.width / DPI, layout.height / DPI)
        self.figure = Figure(figsize=size, dpi=DPI, facecolor=theme.paper)
        self.axes = self.figure.add_axes((0, 0, 1, 1))
        self.axes.set(xlim=(0, layout.width), ylim=(layout.height, 0))
        self.axes.axis("off")

    def text(self, x: float, y: float, text: str, size: float, **options: Any) -> None:
        """Text with its baseline at y; ``size`` in pixels."""
        options = {"color": self.theme.ink, "ha": "center", "va": "baseline"} | options
        self.axes.text(x, y, text, fontsize=size * 72 / DPI, **options)

    def line(self, x: Sequence[float], y: Sequence[float], width: float, **options: Any) -> None:
        """A line; ``width`` in pixels."""
        options = {"color": self.theme.line, "solid_capstyle": "round"} | options
        self.axes.plot(x, y, linewidth=width * 72 / DPI, **options)

    def arrow(self, x: float, y: float, length: float) -> None:
        """An arrow to the right, or down where the parts are below each other."""
        along = np.array([0, length, length - 11, length, length - 11])
        across = np.array([0, 0, -8, 0, 8])
        steps = (across, along) if self.layout.tall else (along, across)
        ends = (x + steps[0], y + steps[1])
        for part in (slice(2), slice(2, 5)):  # shaft, head
            some = (ends[0][part], ends[1][part])
            self.line(*some, 2.5, color=self.theme.muted, solid_joinstyle="round")

    def crystal(self, drawing: Drawing, x: float, y: float) -> None:
        """A crystal around a point."""
        corner = (round(x - CELL_PX / 2), round(self.layout.height - y - CELL_PX / 2))
        self.figure.figimage(picture(drawing, self.theme), *corner, origin="upper", zorder=3)


APART = 202  # between neighbouring crystals


def pixels(record: Record, theme: Theme, layout: Layout = WIDE) -> np.ndarray:
    """(height, width, 3) the picture."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.font_manager import fontManager

    if "STIXGeneral" not in fontManager.get_font_names():  # a cache of fonts can be out of date
        for path in Path(mpl.get_data_path(), "fonts", "ttf").glob("STIX*.ttf"):
            fontManager.addfont(path)
    style = {"font.family": "STIXGeneral", "mathtext.fontset": "stix", "text.hinting": "none"}
    with mpl.rc_context(style):
        page = Page(theme, layout)
        training(page, run("fixed"))
        shown(page, record)
        funnels(page, record)
        canvas = FigureCanvasAgg(page.figure)
        canvas.draw()
    fine = np.asarray(canvas.buffer_rgba())[..., :3].astype(int)
    paper = fine[0, 0]  # stays as it is, so that the picture has no visible border on its page
    coarse = paper + np.rint((fine - paper) / COLOUR_STEP) * COLOUR_STEP
    return np.clip(coarse, 0, 255).astype(np.uint8)


def shown(page: Page, record: Record) -> None:
    """Real crystals first, new ones last."""
    first, last = page.layout.real, page.layout.new
    train = imd.datasets.load("oqmd_icsd", split="train")
    real, new = standard(of_data(train, REAL)), standard(samples(record))
    twins = standard(held_back()[record.twins].crystals)
    sizes = {"real": lengths(real), "new": lengths(new), "twins": lengths(twins)}
    notes = [f"{a:.2f} Å" for a in sizes["real"]]
    row(page, first, real, notes)
    notes = [f"{a:.2f} Å (DFT {b:.2f})" for a, b in zip(sizes["new"], sizes["twins"], strict=True)]
    row(page, last, new, notes)
    n_real = run("fixed")["training_crystals"]
    heading(page, first, "real crystals", f"{n_real:,} to learn from; here are 3")
    found = f"{record.passed:,} pass; {record.found} match held-out data; here are 3"
    heading(page, last, "new crystals", found)


def lengths(crystals: CrystalBatch) -> list[float]:
    """Lattice constants in Å."""
    return crystals.lattice[:, 0].norm(dim=1).tolist()


def heading(page: Page, at: tuple[int, int], title: str, note: str) -> None:
    """Title of a part, and a line below it."""
    page.text(at[0], at[1] + 48, title, 38)
    page.text(at[0], at[1] + 82, note, 25, color=page.theme.muted)


def row(page: Page, at: tuple[int, int], crystals: CrystalBatch, notes: Sequence[str]) -> None:
    """Three crystals beside each other, formula and lattice constant below."""
    x, down = at
    for k, note in enumerate(notes):
        drawing = draw(crystals, k)
        place = x + (k - 1) * APART
        page.crystal(drawing, place, down + 215)
        page.text(place, down + 352, subscripts(drawing.formula), 29)
        page.text(place, down + 382, note, 22, color=page.theme.muted)


def subscripts(formula: str) -> str:
    """A formula for matplotlib, its numbers low."""
    parts = ["".join(part) for _, part in itertools.groupby(formula, str.isdigit)]
    return "".join(rf"$_{{{part}}}$" if part.isdigit() else part for part in parts)


def training(page: Page, record: dict[str, Any]) -> None:
    """The critic's distance between real and generated crystals, over the training."""
    history = record["history"]
    steps = np.array([entry["step"] for entry in history])
    distance = np.array([entry["critic_distance"] for entry in history])
    middle, down = page.layout.learn
    left, right, bottom, top = middle - 100, middle + 104, down + 325, down + 135
    x = left + (right - left) * steps / steps[-1]
    y = bottom - (bottom - top) * distance / distance.max()
    page.line([left, right], [bottom, bottom], 1.5)
    page.line([left, left], [bottom, top], 1.5)
    page.line(x, y, 3, color=page.theme.fixed, solid_joinstyle="round")
    page.text(left - 8, bottom + 6, "0", 22, ha="right", color=page.theme.muted)
    page.text(
        left - 8, y.min() + 7, f"{distance.max():.1f}", 22, ha="right", color=page.theme.muted
    )
    page.text(middle, bottom + 27, f"{steps[-1]:,} training steps", 22, color=page.theme.muted)
    heading(page, page.layout.learn, "a generator", "its distance from the real,")
    page.text(middle, down + 110, "as the critic sees it", 25, color=page.theme.muted)
    for place in page.layout.arrows:
        page.arrow(*place, 40)


def funnels(page: Page, record: Record) -> None:
    """One band a generator, as wide as the share of its samples that survives so far."""
    layout, stages = page.layout, ["generated", *record.stages]
    columns = np.linspace(*layout.columns, len(stages))
    first, apart = layout.bands
    last = first + (len(record.shares) - 1) * apart
    for column, stage in zip(columns, stages, strict=True):
        if not layout.tall or column in layout.columns:  # room for the first and the last
            page.text(column, first - 34, stage, 23, color=page.theme.muted)
        page.line([column, column], [first - 24, last + 16], 1, zorder=0.5)
    colours = (page.theme.fixed, page.theme.published, *[page.theme.plain] * len(record.shares))
    for k, (name, shares) in enumerate(record.shares.items()):
        y = first + k * apart
        band(page, columns, y, [1.0, *shares], colours[k])
        size = 31 - 3 * layout.tall
        page.text(columns[0] - 58, y + 8, name, size - 5, ha="right")
        page.text(columns[-1] + 42, y + 10, f"{100 * shares[-1]:.1f} %", size, ha="left")
    notes = [
        f"share of n = {record.n:,} samples of each left after each test",
        f"95 % intervals within ± {100 * record.margin:.1f} points",
    ]
    for k, note in enumerate(notes if layout.tall else ["; ".join(notes)]):
        page.text(layout.width / 2, last + 40 + 28 * k, note, 22, color=page.theme.muted)


def band(page: Page, columns: np.ndarray, y: float, shares: Sequence[float], colour: str) -> None:
    """A horizontal band that narrows smoothly from stage to stage."""
    x = np.linspace(columns[0] - 30, columns[-1] + 18, 1200)
    place = np.clip((x - columns[0]) / (columns[1] - columns[0]), 0, len(shares) - 1)
    before = np.minimum(place.astype(int), len(shares) - 2)
    t = place - before
    share = np.array(shares)
    half = 17 * (
        share[before] + (share[before + 1] - share[before]) * t**3 * (10 - 15 * t + 6 * t**2)
    )
    page.axes.fill_between(x, y - half, y + half, color=colour, linewidth=0.8, zorder=2)


def save(record: Record, theme: Theme, layout: Layout, folder: Path) -> Path:
    """Write one picture and return its path."""
    from PIL.Image import fromarray
    from PIL.PngImagePlugin import PngInfo

    about = PngInfo()
    about.add_text("Record", json.dumps(asdict(record)))
    path = folder / f"{layout.file}{theme.file}"
    picture = fromarray(pixels(record, theme, layout))
    picture.save(path, compress_level=9, pnginfo=about)
    return path


def main() -> None:
    """Judge, then draw the pictures."""
    record = judged()
    print(
        f"{record.passed:,} of {record.n:,} pass, {record.found} of them are in the held-out data"
    )
    for theme, layout in itertools.product(THEMES, (WIDE, TALL)):
        path = save(record, theme, layout, REPO / "book" / "_assets")
        print(f"{path.relative_to(REPO)}: {path.stat().st_size // 1000} kB")


if __name__ == "__main__":
    main()
