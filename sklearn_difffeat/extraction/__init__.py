"""Model inputs to features: look up stored features, run the passes that are missing.

``_extract`` is the entry point. ``_extraction`` does the work in one process: cells are
looked up window by window, batched (``_batches``) and claimed. ``_model`` prepares a
batch and computes it: ``_forward`` is one hooked pass for all blocks. ``_workers``
distributes rows among joblib's workers, ``_features`` is the matrix that is filled.
``_job`` has what a worker needs, ``_plan`` which passes there are and the order of the
columns.

Four kinds of numbers index these things. ``rows`` are rows of X (in a joblib worker: of
its piece of X); ``at`` are positions in a batch; ``column`` is that of a pass in
``Rows.needed``; ``places`` say where the store has a row.
"""
