"""Hospital tables to trajectories."""
