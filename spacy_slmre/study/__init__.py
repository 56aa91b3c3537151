"""Everything that only the reproduction of the study (arXiv 2606.22606) needs. No other package imports this one."""
