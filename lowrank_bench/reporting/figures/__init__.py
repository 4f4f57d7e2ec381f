"""Pictures of boards and profiles."""
