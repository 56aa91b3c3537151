"""The reproduction of the study (arXiv:2606.22606). No other package imports this one."""
