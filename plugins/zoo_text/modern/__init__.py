"""Text transformer with rotary positions, gates and registers."""
