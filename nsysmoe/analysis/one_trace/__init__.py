"""Questions to one trace."""
