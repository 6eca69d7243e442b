"""The Kafka protocol, as far as a proxy must understand it: where brokers' addresses stand, and who answers what.

`primitives` reads and writes the protocol's types; `tables` says where in a response addresses stand; `walker` follows
a table and splices; `advertised` decides about one address; `capping` rewrites ApiVersions responses; `denials`
sees what the cluster refuses; `acks` reads how far a Produce request wants to be answered; `frames` cuts a stream up;
`inflight` keeps the requests that wait for an answer; `session` puts both directions of one connection together;
`asking` is for a question of our own. Nothing here does I/O or reads the clock.
"""
