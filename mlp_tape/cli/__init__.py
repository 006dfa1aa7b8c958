"""The command line: the only wing that imports Hydra."""
