"""tenth: an open implementation of the DeepSeek-R1 system in Python on PyTorch."""

__version__ = "0.4.0"
