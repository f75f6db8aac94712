"""Reading what nsys writes: SQLite exports, reports (through nsys itself) and summary CSVs."""
