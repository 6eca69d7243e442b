"""The faults that the doctor must name: each produced for real, with what has to be said of it first."""
