"""Other people's clients, each a script of its own: what it calls, and what it got, as JSON on standard output."""
