"""The receiver: hears Whop, calls nobody."""
