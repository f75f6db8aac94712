"""Where experts should live: plans from loads, and what devices carry under a plan."""
