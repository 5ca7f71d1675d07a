import numpy as np
import pytest

from imd_helpers import datasets
from imd_helpers.descriptors.symmetry_sites import Sites, canonical, find_sites
from imd_helpers.predictors.sites import (
    SitePredictor,
    SitesEnsemble,
    chemistry_features,
    contact_features,
)
from imd_helpers.runtime import InputError, UnknownNameError


@pytest.fixture(scope="module")
def known():
    cubic = datasets.load("oqmd_icsd").select(nelements=3, space_groups=[225, 216, 221])
    sites, kept = find_sites(cubic.crystals)
    table = cubic.table.iloc[kept]
    values = np.stack([sites.length, table["formation_energy"]], axis=1)
    return sites, values, table["split"].to_numpy()


@pytest.fixture(scope="module", params=["contacts", "chemistry"])
def fitted(request, known):
    sites, values, split = known
    train = split == "train"
    return SitePredictor(request.param).fit(sites[train], values[train])


def test_it_predicts_formulas_it_has_not_seen(fitted, known):
    sites, values, split = known
    held = split != "train"
    error = np.abs(fitted.predict(sites[held]) - values[held])
    assert (error.mean(0) < (0.15, 0.16)).all()  # Å, eV/atom; the spread is 1.2 Å, 1.1 eV/atom
    assert (np.median(error, axis=0) < (0.06, 0.10)).all()


def test_the_length_and_the_way_of_writing_play_no_part(fitted, known):
    sites, _, _ = known
    order = np.array([1, 2, 0])
    other = Sites(
        sites.space_group,
        sites.numbers[:, order],
        (sites.grid[:, order] + 2) % 4,
        np.full(len(sites), np.nan),
    )
    assert np.allclose(fitted.predict(other), fitted.predict(sites))


def test_features_are_finite_and_as_wide_as_promised(known):
    one = canonical(known[0])
    assert contact_features(one).shape == (len(one), 65)
    assert chemistry_features(one).shape == (len(one), 77)
    assert np.isfinite(contact_features(one)).all()
    assert np.isfinite(chemistry_features(one)).all()


def test_contacts_of_perovskite():
    perovskite = Sites(
        np.array([221]),
        np.array([[38, 22, 8]]),
        np.array([[[0, 0, 0], [2, 2, 2], [0, 2, 2]]]),
        np.array([3.9]),
    )
    contacts = contact_features(perovskite)[0, 44:50]  # Sr-Sr Sr-Ti Sr-O Ti-Ti Ti-O O-O, a = 1
    assert np.allclose(contacts, [1, 3**0.5 / 2, 0.5**0.5, 1, 0.5, 0.5**0.5])


def test_a_prototype_not_seen_has_no_column(known):
    sites, values, _ = known
    group = sites.space_group
    model = SitePredictor("chemistry").fit(sites[group == 216], values[group == 216])
    features = model.features(sites[group == 221])
    assert (features[:, 77:] == 0).all()
    assert (model.features(sites[group == 216])[:, 77:].sum(1) == 1).all()


def test_errors_teach(known):
    sites, values, _ = known
    with pytest.raises(UnknownNameError, match="contacts"):
        SitePredictor("contact")
    with pytest.raises(InputError, match="call fit"):
        SitePredictor("contacts").predict(sites)
    with pytest.raises(InputError, match="values has the shape"):
        SitePredictor("contacts").fit(sites, values[:, :1])
    with pytest.raises(InputError, match="NaN or infinity"):
        SitePredictor("contacts").fit(sites, np.where(values > 6, np.nan, values))


def test_an_ensemble_reads_sites_in_any_way_they_are_written(known):
    sites = known[0]
    turned = Sites(sites.space_group, sites.numbers[:, ::-1], sites.grid[:, ::-1], sites.length)
    model = SitesEnsemble(members=2, trees=10, leaves=7).fit(sites, sites.length)
    said = model.predict(sites)
    assert np.allclose(said.mean, model.predict(turned).mean)
    assert np.abs(said.mean - sites.length).mean() < 0.5 * sites.length.std()
