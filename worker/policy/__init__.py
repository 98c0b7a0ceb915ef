"""The mind: what should be true, as pure functions of facts and time."""
