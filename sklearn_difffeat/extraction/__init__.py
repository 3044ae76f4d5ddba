"""Model inputs to features: batches, noise, one hooked pass for all blocks, pooling.

``_gather`` is the way in: it looks up what the store has, shares the rest out to
workers, and fills the feature matrix (``_features``). A worker (``_schedule``) does a
``_job``: it has cells read ahead and batched (``_look_up``, ``_batches``), claims rows,
runs passes (``_engine``: ``_noise``, ``_pass``, ``_pooling``) and keeps them.
``_plan`` says which passes there are and how columns are laid out.
"""
