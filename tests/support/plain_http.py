"""httpx for APIs that are asked over plain http, as the sandbox's is."""

from __future__ import annotations

import ssl

NO_CAS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""`verify=NO_CAS`: without it each client reads all CAs of the system, which takes longer than the sandbox's answer."""
