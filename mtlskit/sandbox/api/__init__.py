"""The sandbox's stand-in for Heroku's data and platform API: the same paths, verbs, codes, fields and quirks.

Theory of operation.

* **The model** (`model`) is a world of frozen records. What takes time at Heroku has a due time here, computed when it
  is asked for from `clock.Durations`; what a status *is* follows from the record and the time of the look. Nothing runs
  in the background, so a space that was stopped for a night finds everything done.
* **The state** (`state`) holds the world and keeps it in `api.json`: each change writes the file whole and then takes
  the new world, without an await between, so two requests cannot lose each other's change. It answers the gateway's
  question whether an address may come in (`ApiState.admits`).
* **The calls** (`mtls`, `rules`, `kafka`) change the state; what they need of the space itself (its CA, its database)
  comes through `hooks.SpaceHooks`.
* **The routes** (`*_routes`) turn requests into calls and records into the fields of Heroku's answers.
* **The front** (`app`) is what every request meets first: its id, the latency, the faults that are switched on, the
  token. `server` puts it on a socket.
"""
