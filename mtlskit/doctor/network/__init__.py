"""Names, addresses, and what answers before TLS has begun."""
