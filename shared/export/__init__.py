"""A model ready to leave a study: manifest, signature, ONNX graph.

Trained weights enter; a signed folder comes out, refused at loading if anything was changed.
"""
