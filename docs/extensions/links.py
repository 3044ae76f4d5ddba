"""Links to the objects that the documentation names, here and in other projects.

The pages name objects as code, such as ``FusionClassifier``; each such name becomes a
link. The objects of other projects are listed here, and intersphinx reads this list
instead of each project's own inventory: so a build needs no network, and a name that
is not listed is an error.
"""

import zlib
from pathlib import Path

from docutils import nodes
from sphinx import addnodes

import sklearn_difffeat
from sklearn_difffeat import datasets

# Project: its documentation, where an object is in it ("$" is the object's full name),
# and the objects: the names of classes begin with a capital.
PROJECTS = {
    "scikit-learn": (
        "https://scikit-learn.org/stable/",
        "modules/generated/$.html#$",
        """
        sklearn.calibration.CalibratedClassifierCV
        sklearn.compose.ColumnTransformer
        sklearn.ensemble.AdaBoostClassifier
        sklearn.ensemble.BaggingClassifier
        sklearn.ensemble.StackingClassifier
        sklearn.ensemble.VotingClassifier
        sklearn.feature_extraction.text.TfidfVectorizer
        sklearn.feature_selection.RFECV
        sklearn.feature_selection.SelectFromModel
        sklearn.frozen.FrozenEstimator
        sklearn.inspection.permutation_importance
        sklearn.linear_model.LogisticRegression
        sklearn.linear_model.LogisticRegressionCV
        sklearn.manifold.TSNE
        sklearn.model_selection.FixedThresholdClassifier
        sklearn.model_selection.GridSearchCV
        sklearn.model_selection.GroupKFold
        sklearn.model_selection.HalvingGridSearchCV
        sklearn.model_selection.HalvingRandomSearchCV
        sklearn.model_selection.KFold
        sklearn.model_selection.StratifiedKFold
        sklearn.model_selection.TunedThresholdClassifierCV
        sklearn.model_selection.check_cv
        sklearn.model_selection.cross_val_predict
        sklearn.model_selection.cross_validate
        sklearn.model_selection.learning_curve
        sklearn.model_selection.validation_curve
        sklearn.multiclass.OneVsRestClassifier
        sklearn.multioutput.ClassifierChain
        sklearn.multioutput.MultiOutputClassifier
        sklearn.pipeline.Pipeline
        sklearn.semi_supervised.SelfTrainingClassifier
        sklearn.utils.Bunch
        """,
    ),
    "torch": (
        "https://docs.pytorch.org/docs/stable/",
        "generated/$.html#$",
        """
        torch.nn.Module
        torch.nn.TransformerDecoder
        """,
    ),
    "diffusers": (
        "https://huggingface.co/docs/diffusers/",
        "api/models/autoencoder_rae#$",
        "diffusers.AutoencoderRAE",
    ),
}


def write_inventories(folder):
    """Write an inventory for each project, and return the mapping for intersphinx."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    mapping = {}
    for project, (address, place, names) in PROJECTS.items():
        entries = [
            f"{name} py:{_role(name)} 1 {place.replace('$', name)} -"
            for name in names.split()
        ]
        header = (
            f"# Sphinx inventory version 2\n# Project: {project}\n# Version: \n"
            "# The remainder of this file is compressed using zlib.\n"
        )
        path = folder / f"{project}.inv"
        path.write_bytes(
            header.encode() + zlib.compress("\n".join([*entries, ""]).encode())
        )
        mapping[project] = (address, str(path))
    return mapping


def _role(name):
    return "class" if name.rpartition(".")[2][0].isupper() else "function"


def _named():
    """Return the full name of each object that is known by its last part."""
    full = {}
    for _, _, names in PROJECTS.values():
        full |= {name.rpartition(".")[2]: name for name in names.split()}
    for module in (sklearn_difffeat, datasets):
        full |= {name: f"{module.__name__}.{name}" for name in module.__all__}
    return full | {"fill_store": "sklearn_difffeat.cluster.fill_store"}


# A name in one of these is no link, or is one already.
TAKEN = nodes.title | nodes.reference | addnodes.pending_xref


def link_names(app, doctree):
    """Turn code that is just an object's name into a link to that object."""
    full = _named()
    for literal in list(doctree.findall(nodes.literal)):
        name = literal.astext().removesuffix("()").rpartition(".")[2]
        known = full.get(name)
        if known is None or not known.endswith(literal.astext().removesuffix("()")):
            continue
        if isinstance(literal.parent, TAKEN):
            continue
        link = addnodes.pending_xref(
            "",
            literal.deepcopy(),
            refdomain="py",
            reftype="obj",
            reftarget=known,
            refexplicit=True,
            refdoc=app.env.docname,
            refwarn=True,
        )
        literal.replace_self(link)


def setup(app):
    app.connect("doctree-read", link_names)
    return {"parallel_read_safe": True, "version": "1"}
