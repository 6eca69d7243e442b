"""The control socket of a running proxy: where it lies, what is spoken on it, its server and its client."""
