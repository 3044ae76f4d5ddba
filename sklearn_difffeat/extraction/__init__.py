"""Model inputs to features: look up what is stored, run the passes that are not.

``_extract`` is the way in; ``_extraction`` the order of things in one process: cells
are looked up window by window, batched (``_batches``) and claimed. ``_model`` prepares
a batch and computes it: ``_forward`` is one hooked pass for all blocks. ``_workers``
shares rows out to joblib, ``_features`` is the matrix that is filled. ``_job`` holds
what a worker has to know, ``_plan`` which passes there are and how columns are laid
out.

Four kinds of numbers index these things. ``rows`` are rows of X (in a joblib worker: of
its piece of X); ``at`` are positions in a batch; ``column`` is that of a pass in
``Rows.needed``; ``places`` say where the store has a row.
"""
