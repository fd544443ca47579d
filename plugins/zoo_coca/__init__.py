"""CoCa: a dual encoder that also writes captions."""
