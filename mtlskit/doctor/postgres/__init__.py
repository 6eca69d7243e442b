"""A session with a PostgreSQL, from the credentials to what is asked inside."""
