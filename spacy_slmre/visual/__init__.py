"""Relations as pictures: arcs over the text, a graph to look around in, and a page to try a pipeline."""
