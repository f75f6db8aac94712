"""What a set of prompts looks like before any model reads it, and sets made to look like that."""
