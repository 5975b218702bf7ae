"""Games to try the proxy with."""
