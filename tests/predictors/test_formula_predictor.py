"""Predictors of a property from a formula alone."""

import numpy as np
import pytest

from imd_helpers.crystals import elements
from imd_helpers.crystals.compositions import amounts
from imd_helpers.datasets.formula_sets import compositions
from imd_helpers.predictors.formulas import FormulaPredictor, composition_features
from imd_helpers.runtime import InputError, UnknownNameError


@pytest.fixture(scope="module")
def training():
    return compositions("icsd")[0]


@pytest.mark.parametrize("kind", ["network", "trees"])
def test_predictors_learn_a_smooth_property(training, kind):
    chi = np.nan_to_num(elements.column("electronegativity"))
    few = np.random.default_rng(0).permutation(training)[:3000]
    value = few @ chi / few.sum(1)
    half = len(few) // 2
    model = FormulaPredictor(kind).fit(few[:half], value[:half])
    error = np.abs(model.predict(few[half:]) - value[half:]).mean()
    assert error < 0.25 * value.std()
    assert np.isnan(model.predict(np.zeros((1, 119), dtype=int))).all()


def test_predictors_check_their_input(training):
    with pytest.raises(InputError, match="knows nothing yet"):
        FormulaPredictor("trees").predict(training[:2])
    with pytest.raises(InputError, match="NaN or infinity"):
        FormulaPredictor("trees").fit(training[:2], np.array([1.0, np.nan]))
    with pytest.raises(UnknownNameError, match="trees"):
        FormulaPredictor("tree")


def test_features_do_not_depend_on_the_size_of_the_formula():
    one = composition_features(amounts(["SrTiO3", "Sr2Ti2O6"]), shares=True)
    assert one.shape == (2, 129)
    assert np.allclose(one[0], one[1])
