"""Questions to routing logs, and to a trace with the routing of its run."""
