"""How sure a number is, and what goes with what."""
