"""A simulated world for the real proxy: one thread, virtual time, and all chance from one seed."""
