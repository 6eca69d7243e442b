"""The life of identities: when one is due, and how it is replaced without ever standing without a working pair."""
