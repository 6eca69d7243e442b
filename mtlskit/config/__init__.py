"""The configuration file and the flags, parsed once into frozen values."""
