"""Keys, certificates and chains as objects: bytes in, facts out; no disk, no clock.

`pem` finds the blocks in a file, `keys` and `certificates` turn them into objects, `identity` decides whether a
certificate and a key make a usable client identity, and `authority` is a small certificate authority for the sandbox
and the tests. `source` is the name by which errors speak of the bytes: usually a path.
"""
