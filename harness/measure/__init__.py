"""The only timed loops of the project, and what surrounds them: clocks, memory, the environment."""
