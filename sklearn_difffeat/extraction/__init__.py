"""Inputs to features: batches, noise, one hooked pass, pooling, the feature store.

``_gather`` is the way in: it looks up what the store has, shares the rest out to
workers, and fills the feature matrix (``_features``). A worker (``_schedule``) does a
``_job``: it claims rows (``_claims``), has them read ahead and batched (``_reader``,
``_batches``), runs passes (``_engine``: ``_noise``, ``_pass``, ``_pooling``) and keeps
them (``_chunk``, ``_store``, on an SQLite ``_store_file``). ``_plan`` says which passes
there are and how columns are laid out.
"""
