"""Readers of people's files, one format a module; which one reads a file is decided by its content."""
