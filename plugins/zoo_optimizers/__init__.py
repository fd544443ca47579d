"""Optimizers: torch's, Muon, schedule-free AdamW and timm's."""
