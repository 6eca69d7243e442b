"""Keys, certificates and chains as objects: bytes in, facts out; no disk, no clock."""
