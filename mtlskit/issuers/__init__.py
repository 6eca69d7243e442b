"""Where certificates come from: one protocol, and an issuer for each way."""
