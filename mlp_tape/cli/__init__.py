"""The command line; the only package that imports Hydra, apart from `sweeps.joblib_backend`."""
