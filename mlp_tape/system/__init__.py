"""What the program needs of the operating system: files, signals, the way out."""
