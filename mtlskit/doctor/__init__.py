"""The doctor: why does it not connect, and what is to be typed now? Checks in layers, each with a finding."""
