"""What a run is told: settings, profiles, methods, and the files they come from."""
