"""gameproxy: a front door for game servers that speak length-framed TCP."""

__version__ = "0.1.0"
