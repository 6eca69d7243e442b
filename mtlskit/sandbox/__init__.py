"""A small Private Space on the laptop: a real Postgres behind a gateway that demands mutual TLS."""
