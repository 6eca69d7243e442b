"""What is in the files: the certificate, its key, the chain, the trust anchors, lists of revoked certificates."""
