"""Sets of prompts that are concentrated by a known amount: section 5.3.1 of the paper."""
