"""Kafka through mtlskit, beside no proxy and beside kafka-proxy: `python -m tests.bench.kafka`. No time is asserted.

    python -m tests.bench.kafka                          everything, five rounds: some ten minutes
    python -m tests.bench.kafka --quick                  a quarter of the size, three rounds: some four minutes
    python -m tests.bench.kafka --only produce,consume   some of it (`--list` explains all)
    python -m tests.bench.kafka --contenders direct,mtlskit
    python -m tests.bench.kafka --json FILE --plot FILE.png

**What stands where.** Clients of librdkafka speak plain TCP to a proxy on loopback, the proxy speaks TLS 1.3 with a
client certificate (P-256) to a real Kafka of `tests.services`. `direct` is the limit: librdkafka does TLS itself, in C
and in a thread of its own. kafka-proxy (https://github.com/grepplabs/kafka-proxy) takes part where it is on PATH.

**The cluster** is one broker with one replica of each partition: three would share the machine's cores, and copies
between them cost the same whoever the client is. What is produced goes to the page cache (Kafka does not fsync) and is
deleted soon, so that no disk rules. Its Java gets both compilers and 1 GiB, unlike in the tests. The broker is niced by
the tests' services; clients and proxies are niced alike, so that none goes first.

**The clients** (`client`) are processes of their own; what is measured begins when all are connected. All settings are
librdkafka's own but those that `settings` tells. Topics have four partitions: a client alone uses all of them, four
clients one each. Nothing is compressed. MB are 10^6 bytes of records, without what Kafka puts around them.

**How it is measured.** All contenders run at once and are loaded one after another, A B C, B C A, C A B. The median of
the rounds is quoted with its extremes; ratios are taken within each round. CPU time is that of the proxy's process.
Broker, clients and proxy share the machine's cores: on two of them throughput is bounded by the CPU of all three, and
the CPU time of the proxy says more about it than the seconds do.

It needs Linux, and for the plot matplotlib (dependency group `bench`). Load goes to loopback only.
"""
