"""The external IP allowlist: wanted rules, pure plans, and applying them so that nobody is locked out."""
