"""Calendars that sellers keep elsewhere: fetched, read, and remembered."""


class Broken(Exception):
    """A calendar cannot be had, or cannot be read. The message says why, never its address."""
