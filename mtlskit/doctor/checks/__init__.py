"""The checks, a module for each layer. None of them raises for what it finds; what it finds are findings."""
