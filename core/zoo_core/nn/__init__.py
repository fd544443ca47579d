"""Building blocks of towers."""
