"""Plain Postgres clients to databases behind mutual TLS: a local proxy, client identities and a sandbox."""

__version__ = "0.1.0"
