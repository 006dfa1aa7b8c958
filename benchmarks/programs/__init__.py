"""Whole programs that the command is measured against."""
