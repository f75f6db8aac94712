"""One trace."""
