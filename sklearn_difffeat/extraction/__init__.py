"""Inputs to features: batches, noise, one hooked pass, pooling, the feature store."""
