"""Questions to a Kafka cluster: its brokers, its topics, a record there and back."""
