"""Which columns of a feature matrix belong to which modality."""
