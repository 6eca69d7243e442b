"""mtlskit beside its peers, measured: `python -m tests.bench`. Nothing here asserts a time.

    python -m tests.bench                          every work load, five rounds: some forty minutes
    python -m tests.bench --quick                  the same at a quarter of the size, three rounds: about eight minutes
    python -m tests.bench --only bulk,pgbench      some of them (`--list` names and explains all)
    python -m tests.bench --contenders mtlskit,stunnel
    python -m tests.bench --json FILE --plot FILE.png

**What stands where.** Clients speak plain TCP to a proxy on loopback, the proxy speaks TLS 1.3 with a client
certificate (P-256) to a server on loopback. Behind the raw work loads the server is `tests.bench.origin` (forked
Python, blocking `ssl` sockets, big buffers); behind the others it is the PostgreSQL 18 of `tests.services`. Each peer
found on PATH takes part; `tests.bench.contenders` holds one module for each, with its settings and why. ghostunnel:
`go install github.com/ghostunnel/ghostunnel@v1.11.1`; the others: `apt-get install stunnel4 haproxy nginx
libnginx-mod-stream`. Two limits stand beside them: `direct` (the client does TLS itself, no proxy) and `plain relay`
(HAProxy in TCP mode that splices to a plain server: a relay without crypto).

**How it is measured.** All contenders run at once, and are loaded one after another, A B C, B C A, C A B: noise that
lasts hits all of them. A table quotes the median of the rounds with the smallest and the largest value; a ratio is
taken within each round, and its median and spread are quoted. CPU time is that of the proxy's processes (user and
system, ended threads included, to the nanosecond), so that a busy machine disturbs it little; on a machine with few
cores client, proxy and server share them, so throughput is bounded by the CPU of all three.

**What it needs.** Linux, an `RLIMIT_NOFILE` of some 20,000 for 5,000 idle connections, pgbench (`apt-get install
postgresql`), and for the plot matplotlib (dependency group `bench`).
Load goes to loopback only, and every process it starts ends with it.
"""
