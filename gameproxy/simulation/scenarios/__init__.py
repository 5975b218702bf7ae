"""Scenarios: what happens in a run. Each is a file with a function ``play``; write your own and name its path."""
