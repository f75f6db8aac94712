"""A server in production, read as it goes: held in bounded memory, shown, exported, judged."""
