"""scikit-learn's own tests of GridSearchCV, run against LocalSearchCV.

The module that scikit-learn installs is executed once more with a thin shim in the
place of GridSearchCV: LocalSearchCV under the parameter name ``param_grid``. What does
not apply is listed with the reason.
"""

import importlib.util
import sys
import warnings
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import sklearn.model_selection

from sklearn_difffeat import LocalSearchCV

ORDER = "expects candidates in the order of the grid, or all of them"
SEVERAL = "searches a list of grids, which has no one start"
UNORDERED = "its values repeat or are in no order, which is an error here"
CALLBACKS = "counts callbacks of one batch, where a walk has several"
SKIPPED = {
    "test_grid_search": ORDER,
    "test_grid_search_cv_results": SEVERAL,
    "test_grid_search_correct_score_results": ORDER,
    "test_refit_callable": ORDER,
    "test_refit_callable_multi_metric": ORDER,
    "test_grid_search_cv_results_multimetric": SEVERAL,
    "test_search_cv_results_rank_tie_breaking": UNORDERED,
    "test_search_cv_timing": ORDER,
    "test_grid_search_classifier_all_fits_fail": UNORDERED,
    "test_grid_search_cv_splits_consistency": UNORDERED,
    "test_callable_multimetric_clf_all_fits_fail": UNORDERED,
    "test_custom_run_search": SEVERAL,
    "test_search_callbacks_no_propagation": CALLBACKS,
    "test_search_callbacks_propagation": CALLBACKS,
    "test_search_callbacks_with_partial_fit_failures": CALLBACKS,
    "test_array_api_search_cv_classifier": "needs libraries of the array API",
}


class GridSearchCV(LocalSearchCV):
    """LocalSearchCV with the constructor of GridSearchCV."""

    def __init__(
        self,
        estimator,
        param_grid,
        *,
        scoring=None,
        n_jobs=None,
        refit=True,
        cv=None,
        verbose=0,
        pre_dispatch="2*n_jobs",
        error_score=np.nan,
        return_train_score=False,
    ):
        super().__init__(
            estimator,
            param_grid,
            scoring=scoring,
            n_jobs=n_jobs,
            refit=refit,
            cv=cv,
            verbose=verbose,
            pre_dispatch=pre_dispatch,
            error_score=error_score,
            return_train_score=return_train_score,
        )

    @property
    def param_space(self):
        one_grid = isinstance(self.param_grid, list) and len(self.param_grid) == 1
        return self.param_grid[0] if one_grid else self.param_grid

    @param_space.setter
    def param_space(self, values):
        self.param_grid = values


def load_peers():
    folder = Path(sklearn.model_selection.__file__).parent
    path = folder / "tests" / "test_search.py"
    spec = importlib.util.spec_from_file_location("peers_of_search", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    replaced = patch.object(sklearn.model_selection, "GridSearchCV", GridSearchCV)
    with replaced, warnings.catch_warnings():
        # Marks of scikit-learn's own test suite are unknown here.
        warnings.simplefilter("ignore")
        spec.loader.exec_module(module)
    return module


pytestmark = pytest.mark.filterwarnings("ignore")
peers = load_peers()
globals().update(
    {
        name: test
        for name, test in vars(peers).items()
        if name.startswith("test_") and name not in SKIPPED
    }
)
