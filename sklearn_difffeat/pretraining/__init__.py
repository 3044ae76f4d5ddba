"""The recipe behind the embedded backbones: corpus, alignment targets, training.

Run it with ``python -m sklearn_difffeat.pretraining --help``.
"""
