"""The chapters of the page, a file each: they lay out what ``results`` has computed."""
