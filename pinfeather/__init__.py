"""The front door: command line, demo catalogue, importers."""

__version__ = "0.1.0"
