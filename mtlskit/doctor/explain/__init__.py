"""What the error text of another program means here: libpq, JDBC, Kafka's clients, OpenSSL, and languages' own."""
