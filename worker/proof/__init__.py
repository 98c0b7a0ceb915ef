"""Does access equal purchases? Whop is walked and compared, and what was forgotten read back."""
