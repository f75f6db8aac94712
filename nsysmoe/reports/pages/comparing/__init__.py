"""Two arms."""
