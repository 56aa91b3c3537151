"""Import from annotation tools: Label Studio, Prodigy, doccano, brat, INCEpTION, spaCy, and our own JSON form.

In all of these, a document annotates relations: every other candidate pair is negative.
"""
