"""Data sets that are too large to travel with the package: where they are, and how to trust them.

Checksums are SHA-256 where the publisher gives one, else the name that git gives the file's
content ("git": SHA-1 over ``blob <size>`` and the content), read from the repository's tree.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

GITHUB = "https://raw.githubusercontent.com"
MIRROR = "https://cdn.jsdelivr.net/gh"  # serves the files of GitHub repositories up to 20 MB
FIGSHARE = "https://ndownloader.figshare.com/files"
MATBENCH = "https://ml.materialsproject.org/projects"


@dataclass(frozen=True)
class RemoteFile:
    """One file: its name in the cache, where to get it, and what it must be.

    Attributes:
        path: file name.
        urls: tried in turn.
        checksum: ``sha256:<hex>`` or ``git:<hex>``.
        size: bytes, None where the publisher does not say.
        split: the part of the published split that it holds, if the files are the parts.
    """

    path: str
    urls: tuple[str, ...]
    checksum: str
    size: int | None = None
    split: str | None = None


@dataclass(frozen=True)
class RemoteSet:
    """A downloadable data set.

    Attributes:
        name: what `load` and `fetch` take.
        title: one line.
        files: what has to be downloaded.
        kind: how `load` reads it: ``cif_csv`` (tables with a column `cif`), ``cif_zip`` (a zip of
            such tables), ``json`` (pandas' "split" layout, structures as pymatgen dicts), or
            ``files`` (`fetch` only).
        licence: of the data, as its publisher states it.
        citation: what to cite.
        rows: how many rows, as published.
        columns: published column names -> the names used here.
        notes: what to know before use.
    """

    name: str
    title: str
    files: tuple[RemoteFile, ...]
    kind: str
    licence: str
    citation: str
    rows: int | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    notes: str = ""

    def card(self) -> str:
        """The card as Markdown."""
        rows = "not stated" if self.rows is None else f"{self.rows:,}"
        columns = [f"- `{old}` is called `{new}` here" for old, new in self.columns.items()]
        lines = [
            f"# {self.name}: {self.title}",
            *("", "## Origin", "", *(f"- <{url}>" for file in self.files for url in file.urls)),
            *("", "## Licence", "", self.licence),
            *("", "## Columns and units", "", _UNITS, "", *columns),
            *("", "## Counts", "", f"Rows as published: {rows}."),
            *("", "## Known faults", "", self.notes or "None recorded."),
            *("", "## How it was made", "", "Published by others; downloaded and checked:", ""),
            *(f"- `{f.path}`: {_size(f)}, `{f.checksum}`" for f in self.files),
            *("", "## Citation", "", self.citation, ""),
        ]
        return "\n".join(lines)


_UNITS = "As published: Å, eV/atom for energies and eV for gaps unless a known fault says other."


def _size(file: RemoteFile) -> str:
    return "size not stated" if file.size is None else f"{file.size:,} bytes"


def _github(repository: str, path: str, checksum: str, **options: str) -> RemoteFile:
    """A file of a GitHub repository's default branch, with a mirror as the second address."""
    urls = (f"{GITHUB}/{repository}/HEAD/{path}", f"{MIRROR}/{repository}/{path}")
    return RemoteFile(path.rsplit("/", 1)[-1], urls, checksum, **options)


def _lfs(path: str, sha256: str, size: int) -> RemoteFile:
    """A large file of the MatterGen repository."""
    urls = (
        f"https://media.githubusercontent.com/media/microsoft/mattergen/main/{path}",
        f"https://github.com/microsoft/mattergen/raw/main/{path}",
    )
    return RemoteFile(path.rsplit("/", 1)[-1], urls, f"sha256:{sha256}", size)


def _cdvae(folder: str, **blobs: str) -> tuple[RemoteFile, ...]:
    """The three csv files of a CDVAE benchmark."""
    return tuple(
        _github("txie-93/cdvae", f"data/{folder}/{split}.csv", f"git:{blob}", split=split)
        for split, blob in blobs.items()
    )


def _json(name: str, url: str, sha256: str) -> tuple[RemoteFile, ...]:
    return (RemoteFile(f"{name}.json.gz", (url,), f"sha256:{sha256}"),)


_MP_LICENCE = "Materials Project data: CC-BY-4.0."
_MP_PAPER = "Jain et al., APL Materials 1 (2013) 011002, doi:10.1063/1.4812323"
_CDVAE_PAPER = "Xie et al., Crystal diffusion variational autoencoder, ICLR 2022, arXiv:2110.06197"
_MATBENCH_PAPER = "Dunn et al., npj Computational Materials 6 (2020) 138"
_CASTELLI_PAPER = (
    "Castelli et al., Energy Environ. Sci. 5 (2012) 5814 and 5 (2012) 9034, doi:10.1039/C2EE22341D"
)
_MATTERGEN_PAPER = "Zeni et al., MatterGen, Nature 639 (2025) 624, doi:10.1038/s41586-025-08628-5"
_PUBLISHED_SPLIT = (
    "`split` is the published one, which does not keep the polymorphs of a formula together; "
    "`formula_split` is the split of this project."
)
_NO_LICENCE = "None stated by the repository: for your own study only."
_MP_COLUMNS = {
    "material_id": "entry",
    "formation_energy_per_atom": "formation_energy",
    "e_above_hull": "energy_above_hull",
    "spacegroup.number": "space_group",
}
_MATTERGEN_COLUMNS = {"material_id": "entry", "dft_band_gap": "band_gap"}

_SETS = (
    RemoteSet(
        name="mp_20",
        title="Materials Project crystals of at most 20 atoms, the benchmark of CDVAE",
        files=_cdvae(
            "mp_20",
            train="b1c9d498565ac2fd8d075a51ff2ef5e51ba6c21f",
            val="7efe4d7ebeb4f460ceaad35e5326c42111d9c9a1",
            test="5dc643041df53f5ce4970a79930ad262b4f07acd",
        ),
        kind="cif_csv",
        licence=f"{_MP_LICENCE} Files of the CDVAE repository: MIT.",
        citation=f"{_MP_PAPER}; {_CDVAE_PAPER}",
        rows=45_229,
        columns=_MP_COLUMNS,
        notes=_PUBLISHED_SPLIT,
    ),
    RemoteSet(
        name="perov_5",
        title="18,928 hypothetical perovskites of five atoms",
        files=_cdvae(
            "perov_5",
            train="0769074b5d51d293b765c4371b8f55c468c9c9f2",
            val="4a2c8dde98347dd0e01fa83dcf3982c2abe98f9f",
            test="d3c5d5af4b27a2a139149f2bb73c8a3dba9d8ac1",
        ),
        kind="cif_csv",
        licence="Files of the CDVAE repository: MIT.",
        citation=f"{_CASTELLI_PAPER}; {_CDVAE_PAPER}",
        rows=18_928,
        columns={"material_id": "entry"},
        notes="`heat_all` and `heat_ref` are energies as published: their reference for oxygen is "
        f"water vapour, so do not mix them with other formation energies. {_PUBLISHED_SPLIT}",
    ),
    RemoteSet(
        name="carbon_24",
        title="10,153 carbon crystals of 6 to 24 atoms from random search at 10 GPa",
        files=_cdvae(
            "carbon_24",
            train="5e7ae970fbad8ddc46b6963e8cd6e425f11783a6",
            val="b3e29b927883642426ca1d9632d00359b412742b",
            test="9beca843fde489de1fe288b32f9e3ff710d42803",
        ),
        kind="cif_csv",
        licence="Files of the CDVAE repository: MIT.",
        citation="Pickard, AIRSS data for carbon at 10 GPa, Materials Cloud (2020), "
        f"doi:10.24435/materialscloud:2020.0026/v1; {_CDVAE_PAPER}",
        rows=10_153,
        columns={"material_id": "entry"},
        notes="One formula, so `formula_split` puts all crystals on one side; use `split`.",
    ),
    RemoteSet(
        name="mp_20_mattergen",
        title="MP-20 as MatterGen uses it",
        files=(
            _lfs(
                "data-release/mp-20/mp_20.zip",
                "5f44d6ad75299b6c08a3679ebcbd166def45c6d7733baacdce3972c2ec452e3a",
                12_254_159,
            ),
        ),
        kind="cif_zip",
        licence="CC-BY-4.0.",
        citation=f"{_MP_PAPER}; {_MATTERGEN_PAPER}",
        columns=_MATTERGEN_COLUMNS,
        notes=_PUBLISHED_SPLIT,
    ),
    RemoteSet(
        name="alex_mp_20",
        title="Alexandria and Materials Project crystals of at most 20 atoms (MatterGen)",
        files=(
            _lfs(
                "data-release/alex-mp/alex_mp_20.zip",
                "6688e652e45fac4ac8b016dbc4a3280afde9ba687bdacfd8c676775ed19b6228",
                186_506_244,
            ),
        ),
        kind="cif_zip",
        licence="CC-BY-4.0.",
        citation=f"{_MP_PAPER}; {_MATTERGEN_PAPER}",
        columns=_MATTERGEN_COLUMNS,
        notes="Hundreds of thousands of CIFs: reading all of them takes tens of minutes. "
        f"{_PUBLISHED_SPLIT}",
    ),
    RemoteSet(
        name="matbench_mp_e_form",
        title="132,752 Materials Project structures with formation energies",
        files=_json(
            "matbench_mp_e_form",
            f"{MATBENCH}/matbench_mp_e_form.json.gz",
            "dedcb1d4ba2e3e50dbdd45ba5bc647a00e9c2bcf8f8bf556dc8e92caa39eb21f",
        ),
        kind="json",
        licence=_MP_LICENCE,
        citation=f"{_MP_PAPER}; {_MATBENCH_PAPER}",
        rows=132_752,
        columns={"e_form": "formation_energy"},
        notes="Matbench counts its folds by row: the row order is that of the file.",
    ),
    RemoteSet(
        name="matbench_mp_gap",
        title="106,113 Materials Project structures with PBE band gaps",
        files=_json(
            "matbench_mp_gap",
            f"{MATBENCH}/matbench_mp_gap.json.gz",
            "58b65746bd88329986ed66031a2ac1369c7c522f7bc9f9081528e07097c2c057",
        ),
        kind="json",
        licence=_MP_LICENCE,
        citation=f"{_MP_PAPER}; {_MATBENCH_PAPER}",
        rows=106_113,
        columns={"gap pbe": "band_gap"},
        notes="Matbench counts its folds by row: the row order is that of the file.",
    ),
    RemoteSet(
        name="matbench_perovskites",
        title="18,928 hypothetical perovskites with formation energies",
        files=_json(
            "matbench_perovskites",
            f"{MATBENCH}/matbench_perovskites.json.gz",
            "4641e2417f8ec8b50096d2230864468dfa08278dc9d257c327f65d0305278483",
        ),
        kind="json",
        licence="As the source data: see Castelli et al.",
        citation=f"{_CASTELLI_PAPER}; {_MATBENCH_PAPER}",
        rows=18_928,
        notes="`e_form` is in eV for the whole cell of five atoms, with water vapour as the "
        "reference for oxygen: it is no formation energy per atom.",
    ),
    RemoteSet(
        name="castelli_perovskites",
        title="18,928 hypothetical perovskites with gaps and band edges",
        files=_json(
            "castelli_perovskites",
            f"{FIGSHARE}/13284197",
            "fc8b44d7213515f9bc2ef3a5a5d3e4b946b321c1311f14c8be31f857b61b10d7",
        ),
        kind="json",
        licence="As the source data: see Castelli et al.",
        citation=_CASTELLI_PAPER,
        rows=18_928,
        notes="`e_form` has water vapour as the reference for oxygen; `gap gllbsc` is a GLLB-SC "
        "gap, not a PBE gap.",
    ),
    RemoteSet(
        name="heusler_magnetic",
        title="1,153 Heusler alloys with magnetic moments (no structures)",
        files=_json(
            "heusler_magnetic",
            f"{FIGSHARE}/13354670",
            "0ae0b837201979afb6004451c8a79b30c0045f0daf4ec11355c3db5953ff9520",
        ),
        kind="json",
        licence="As the source data: see the citation.",
        citation="University of Alabama Heusler database, by way of Citrine "
        "(citrination.com/datasets/150561) and matminer",
        rows=1_153,
        columns={"e_form": "formation_energy"},
    ),
    RemoteSet(
        name="wolverton_oxides",
        title="4,914 ABO3 perovskites with energies and cells (no structures)",
        files=_json(
            "wolverton_oxides",
            f"{FIGSHARE}/13354616",
            "3e66c2a5bd23dac335f045210258ca14babf730824bf989b0127640c24bcb78b",
        ),
        kind="json",
        licence="As the source data: see the citation.",
        citation="Emery & Wolverton, Sci. Data 4 (2017) 170153, doi:10.1038/sdata.2017.153",
        rows=4_914,
        notes="Only the distortion of lowest energy of each composition is listed.",
    ),
    RemoteSet(
        name="mp_all_20181018",
        title="The Materials Project as of 18 October 2018",
        files=_json(
            "mp_all_20181018",
            f"{FIGSHARE}/13309250",
            "1f3de2dc7c68959647240921b841293fce918ea1708e6f3760ba35a9cdfe0500",
        ),
        kind="json",
        licence=_MP_LICENCE,
        citation=_MP_PAPER,
        rows=83_989,
        columns={
            "mpid": "entry",
            "e_form": "formation_energy",
            "e_hull": "energy_above_hull",
            "gap pbe": "band_gap",
        },
    ),
    RemoteSet(
        name="cubicgan_ids",
        title="OQMD identifiers of the 375,749 crystals that CubicGAN was trained on",
        files=(
            _github(
                "MilesZhao/CubicGAN",
                "data/oqmd-dat.csv",
                "git:4c00f044216719f52929353adef1772b35324520",
            ),
        ),
        kind="files",
        licence="Repository: MIT. OQMD data: CC-BY-4.0.",
        citation="Zhao et al., CubicGAN, Adv. Sci. 8 (2021) 2100566, doi:10.1002/advs.202100566",
        rows=375_749,
        notes="Identifiers only; the structures have to be fetched from OQMD.",
    ),
    RemoteSet(
        name="pgcgm_datamodel",
        title="Data and trained model of PGCGM",
        files=(
            _github(
                "MilesZhao/PGCGM",
                "datamodel.zip",
                "git:2640072f56d1da81e7c08a31236124cdda48b0da",
            ),
        ),
        kind="files",
        licence="Repository: MIT.",
        citation="Zhao et al., PGCGM, npj Computational Materials 9 (2023) 38, "
        "doi:10.1038/s41524-023-00987-9",
        notes="An archive that may hold Python pickles: unpickle only what you trust.",
    ),
    RemoteSet(
        name="matgan_formulas",
        title="Two million formulas that MatGAN generated from its ICSD model",
        files=(
            _github(
                "originofmatter/MatGAN",
                "generated_data/ICSD_GAN_2M.csv",
                "git:d2097821c5c5b5860891b52e3f541d4741410aa3",
            ),
        ),
        kind="files",
        licence=_NO_LICENCE,
        citation="Dan et al., MatGAN, npj Computational Materials 6 (2020) 84, "
        "doi:10.1038/s41524-020-00352-0",
        notes="Output of the model; its training formulas are not published.",
    ),
    RemoteSet(
        name="ccdcgan_bise",
        title="Bi-Se crystals of CCDCGAN",
        files=(
            _github(
                "TengLong1993/CCDCGAN-for-single-system",
                "database.rar",
                "git:ea77bf3aeaa86e3e50e727de0e0a50f88f17a89a",
            ),
        ),
        kind="files",
        licence=_NO_LICENCE,
        citation="Long et al., CCDCGAN, npj Computational Materials 7 (2021) 66, "
        "doi:10.1038/s41524-021-00526-4",
        notes="A rar archive: unpack it with unrar or 7-Zip.",
    ),
    RemoteSet(
        name="imatgen_vo",
        title="Vanadium oxides that iMatGen generated",
        files=(
            _github(
                "jhwann/iMatGen",
                "iMatGen-VO_dataset_generated_strctures.tar",
                "git:4129f47f3baf6cee43df060c731bc90510bfe7d5",
            ),
        ),
        kind="files",
        licence=_NO_LICENCE,
        citation="Noh et al., iMatGen, Matter 1 (2019) 1370, doi:10.1016/j.matt.2019.08.017",
    ),
)

REGISTRY: Mapping[str, RemoteSet] = MappingProxyType({entry.name: entry for entry in _SETS})
