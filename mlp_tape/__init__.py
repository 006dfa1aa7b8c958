"""A config-driven runner that trains a multilayer perceptron with bare tensors."""

__version__ = "0.1.0"
