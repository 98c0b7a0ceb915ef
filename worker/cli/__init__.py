"""What a person types: options, and how the answer is printed. It decides nothing."""
