"""How facts are shown: blocks, figures, words, and the pages that they are drawn on."""
