"""The commands that talk to Heroku, measured against a sandbox: `python -m tests.bench.heroku`. No time is asserted.

    python -m tests.bench.heroku                         everything, five rounds: about six minutes
    python -m tests.bench.heroku --only plan,startup     some of it
    python -m tests.bench.heroku --json FILE

**What is measured.** Whole processes of `mtlskit`, from their start to their end, as a person or a script waits for
them; `CPU` is the user and system time of that process alone, which a busy machine disturbs less. The API is that of a
real `mtlskit sandbox` in a process of its own; its answers come 100 ms later than they could, as if it were far away
(not for start-up). Client and sandbox share the machine's cores, and the sandbox's own work for a call (some
milliseconds of CPU) is in every figure.

**Beside what.** `plan` beside a bound in seconds. `apply` beside the time that the slowest rule takes to act, and
beside the sum of all rules' times: it should be near the first. It looks at the rules after 1, 3, 7, 15, 31 and 51
seconds, then every 20; so where rules take seconds instead of minutes, much of what it takes longer than the slowest
rule is the rest of a pause. `adding` is what remains of it without waiting for any rule.
"""
