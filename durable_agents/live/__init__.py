"""Live connections of browsers: frames in both directions, and the hub that says when to read rows."""
