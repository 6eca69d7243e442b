"""A Kafka tunnel: a listener for each broker, and clients that never hear of any other address."""
