"""The chapters of the page, one file each: they lay out what ``results`` computes."""
