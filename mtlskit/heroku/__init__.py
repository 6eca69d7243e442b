"""Heroku's data API and platform API: a client that is safe to repeat, and what they tell as frozen values."""
