"""What Usher remembers in Redis, a module for each thing that it remembers."""
