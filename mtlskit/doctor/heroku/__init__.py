"""Heroku's side of a tunnel: what is asked there, and what the answers mean."""
