"""The worker: reads facts, asks policy, applies changes."""
