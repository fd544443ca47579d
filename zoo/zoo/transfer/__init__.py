"""Models to and from other libraries and the Hub."""
