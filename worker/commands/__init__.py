"""What a person types, and what they are shown: the commands but for the processes."""
