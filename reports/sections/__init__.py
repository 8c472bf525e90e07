"""The sections that show something, one file each: evidence in, blocks out."""
