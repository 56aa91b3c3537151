"""Extraction over a corpus: documents from files, results to files, resumable and in constant memory.

Results are written in the order of the input, one entry a document, failed ones included. They are written
aside and renamed when all is done, so that an output is complete or absent; what is aside is what an
interrupted run can go on from.
"""
