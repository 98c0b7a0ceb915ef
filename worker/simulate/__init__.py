"""A year before it happens: Usher itself, in virtual time, against a local Whop."""
