"""What is said in sentences: the analysis by rules, the methods paragraphs, the checklists."""
