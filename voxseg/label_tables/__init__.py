"""Label tables that ship with voxseg: names, colours and codes of known classes."""
