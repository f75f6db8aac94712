"""Where experts should live, whether moving them pays, and what a deployment would take."""
