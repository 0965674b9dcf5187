"""A job scheduler on Redis that loses nothing."""

__version__ = "0.1.0.dev0"
