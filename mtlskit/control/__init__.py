"""The control socket of a running proxy: its protocol, the server that the proxy runs, and the client."""
