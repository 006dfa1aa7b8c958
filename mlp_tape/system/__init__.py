"""Operating system and environment: files, signals, process exit, console, TensorFlow setup, provenance."""
