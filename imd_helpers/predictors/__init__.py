"""Surrogates and referees: fast predictors of properties, from sites, formulas or graphs.

Fitted to different rows, or made in different ways, one can guide a search and another judge it.
"""

from __future__ import annotations

from .boosted import BoostedEnsemble
from .formulas import FormulaPredictor
from .graphs import GraphPredictor
from .pu import PuConfig, PuEnsemble
from .sites import SitePredictor, SitesEnsemble
