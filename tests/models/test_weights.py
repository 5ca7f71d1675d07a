"""The weights that come with the package give the samples that the book's numbers are of.

Whole numbers must agree exactly; lengths are floats and differ a little between processors.
"""

import hashlib

import numpy as np
import pytest

from imd_helpers import models

SEED = 7
CONDITIONS = {
    "": {},
    "group": {"space_group": 225},
    "elements": {"elements": ("Cs", "Pb", "I"), "space_group": 221},
    "uniform": {"labels": "uniform"},
    "data": {"labels": "data"},
}
# variant, condition and n: space groups, numbers, grid and verdicts; three lengths in angstrom
CRYSTALS = {
    ("fixed", "", 2000): ("2da2fb92e0c11cda", [6.0582, 6.4092, 6.455]),
    ("fixed", "group", 300): ("8d37ff490c61437c", [6.6773, 6.3951, 7.2416]),
    ("fixed", "elements", 300): ("df547f6c523429ae", [6.0643, 6.002, 6.3091]),
    ("fixed", "uniform", 300): ("638d6932f47ac34c", [6.5325, 6.305, 6.535]),
    ("fixed", "data", 300): ("37d734936ef13d31", [6.6773, 6.336, 6.6083]),
    ("paper", "", 2000): ("56c75c66f4610e5e", [5.4204, 5.7235, 5.6363]),
    ("paper", "group", 300): ("911a25370b433460", [5.9335, 5.7907, 5.1791]),
    ("paper", "elements", 300): ("0d7600f2ae59506d", [5.6118, 5.3554, 5.8299]),
    ("paper", "uniform", 300): ("5b652917ab5aea9a", [5.9335, 5.8642, 4.9826]),
    ("paper", "data", 300): ("24fe1e20fba5aace", [4.3743, 5.3843, 4.498]),
    ("prototypes", "", 2000): ("4ac1006629d02570", [7.6097, 5.7218, 7.5538]),
    ("prototypes", "group", 300): ("03c035392db6c19d", [7.1109, 7.3055, 5.7531]),
    ("prototypes", "elements", 300): ("bd25a0801435bf07", [6.7927, 6.5801, 6.4327]),
    ("prototypes", "uniform", 300): ("f027acf13d8cd309", [7.3928, 5.4807, 4.9529]),
    ("prototypes", "data", 300): ("6451fa33ad5ee497", [7.1109, 6.9016, 3.6221]),
}
COMPOSITIONS = {  # model, variant and n: counts and verdicts
    ("matgan", "paper", 500): "65dd5ae5eed73863",
    ("matgan", "fixed", 500): "441c23e399bc9037",
    ("sequence_gan", "icsd", 2000): "6d977bffc65d3adc",
    ("sequence_gan", "neutral", 2000): "17fb421ef7615761",
    ("sequence_gan", "oqmd", 2000): "dfe5b8c852046b4b",
    ("sequence_gan", "mp", 2000): "094493ad1d881061",
}
ASKED = {
    "energy": ({"formation_energy": -1.0}, "c5cb8fa5ddca850a"),
    "gap": ({"band_gap": 2.0}, "bb065de564eab337"),
}


def digest(*arrays):
    found = hashlib.sha256()
    for array in arrays:
        whole = np.ascontiguousarray(array).astype(np.int64)
        found.update(str(array.shape).encode() + whole.tobytes())
    return found.hexdigest()[:16]


@pytest.mark.parametrize("key", CRYSTALS)
def test_crystals(key):
    variant, condition, n = key
    model = models.load("cubicgan", variant=variant)
    sites = model.sample_sites(n, condition=CONDITIONS[condition], seed=SEED)
    verdicts = model.decode(sites).ok
    expected, lengths = CRYSTALS[key]
    assert digest(sites.space_group, sites.numbers, sites.grid, verdicts) == expected
    assert sites.length[[0, 1, -1]] == pytest.approx(lengths, abs=2e-3)


@pytest.mark.parametrize("key", COMPOSITIONS)
def test_compositions(key):
    name, variant, n = key
    made = models.load(name, variant=variant).sample(n, seed=SEED)
    assert digest(made.counts, made.ok) == COMPOSITIONS[key]


def test_a_piece_has_a_stream_of_its_own():
    made = models.load("sequence_gan").piece(1, 300, seed=SEED)
    assert digest(made.counts, made.ok) == "c7163717898b49bf"


@pytest.mark.parametrize("name", ASKED)
def test_compositions_asked_for_a_property(name):
    condition, expected = ASKED[name]
    model = models.load("sequence_gan", variant=name)
    made = model.sample(500, condition=condition, seed=SEED)
    assert digest(made.counts, made.ok) == expected


@pytest.mark.parametrize("name", models.names())
def test_every_variant_that_has_a_name_has_weights(name):
    for variant in models.find(name).VARIANTS:
        folder = models.checkpoint_path(name, variant=variant).parent
        assert sorted(path.name for path in folder.iterdir()) == [
            "card.md",
            "model.safetensors",
            "run.json",
        ]
