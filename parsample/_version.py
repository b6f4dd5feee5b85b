"""The version, which every room may read without importing the package's front."""

__version__ = "0.1.0"
