"""Relations as pictures: arcs above the text, or an interactive graph."""
