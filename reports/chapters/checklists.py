"""Items of two reporting guidelines: in which chapter they are answered, or that the authors must provide them.

CLAIM: Mongan, Moy & Kahn, Radiology: Artificial Intelligence 2020 (its 2024 update numbers items differently).
TRIPOD+AI: Collins et al., BMJ 2024. Items in our own words.
"""

from __future__ import annotations

import pandas as pd

from reports.blocks import Table, columns

# CLAIM, TRIPOD+AI, item, chapter
ANSWERED = (
    ("7", "5a", "source of the data", "Data"),
    ("9", "7, 12b", "preprocessing", "Data"),
    ("10, 13", "11", "excluded images; missing labels (masked, not imputed)", "Data"),
    ("33", "20a, 21", "images and patients in each partition", "Data"),
    ("20, 21", "12a", "assignment of data to partitions, and the level at which they are disjoint", "Data"),
    ("22", "12c, 22", "the model", "Summary"),
    ("23", "–", "software", "Reproducibility"),
    ("24", "12c", "initial weights", "Data"),
    ("25", "12c", "training, hyperparameters, models trained", "Methods, limits and checklists"),
    ("26", "12c", "how the final model was selected", "Finalists"),
    ("27", "12c", "ensembles: none, a single network", "Summary"),
    ("28", "12e", "measures of performance", "Summary"),
    ("29", "12e", "uncertainty: 95 % intervals over patients; paired, corrected comparisons", "Finalists"),
    ("30", "–", "robustness: repeats with other seeds", "Finalists"),
    ("31", "–", "attribution maps; not validated to show findings", "Best and worst classified images"),
    ("35, 36", "23a", "performance with its precision", "Summary"),
    ("37", "–", "wrongly classified cases, with file names", "Best and worst classified images"),
    ("–", "13", "class imbalance; macro F1 weights classes equally", "Data"),
    ("–", "14, 23a", "subgroups and fairness", "Confusion and operating points"),
    ("–", "12g, 15", "output: class probabilities and decision rule", "Confusion and operating points"),
    ("–", "12f, 24", "updating of the model: none", "–"),
    ("–", "18e, 18f", "data and code: fingerprint, commit and command; authors state the sharing", "Reproducibility"),
)
# CLAIM, TRIPOD+AI, item: not in the records
AUTHORS = (
    ("1, 2", "1, 2", "title and abstract"),
    ("3, 4", "3a–3c, 4", "background, intended use, health inequalities, objectives"),
    ("5, 6", "–", "prospective or retrospective; the goal of the study"),
    ("8", "5b, 6a–6c", "eligibility criteria, setting and dates; centres; treatments"),
    ("11, 12", "9a–9c", "definitions of data elements; how images were acquired and de-identified"),
    ("14–18", "8a–8c", "reference standard: definition, rationale, annotators, tools and agreement"),
    ("19", "10", "how the sample size was determined"),
    ("32", "16", "external validation (python -m sweep.evaluate writes its tables) and how its data differ"),
    ("34", "20b, 20c", "age, sex and other characteristics of the patients in each partition"),
    ("38, 39", "25, 26, 27a–27c", "interpretation, limitations, implications and use in practice"),
    ("40–42", "17, 18a–18d", "ethics, registration, protocol, funding, conflicts of interest"),
    ("–", "12d, 23b", "differences between centres or other clusters"),
    ("–", "19", "involvement of patients and the public"),
)


def checklists() -> tuple[Table, Table]:
    """The items answered, and where; and those to be provided by the authors."""
    keys = ("claim", "tripod", "item", "chapter")
    titles = {"claim": "CLAIM", "tripod": "TRIPOD+AI", "item": "item"}
    answered, theirs = pd.DataFrame(ANSWERED, columns=keys), pd.DataFrame(AUTHORS, columns=keys[:3])
    text = "To be provided by the authors: not in the records."
    return (
        Table("checklist", "Items answered in this report.", answered, columns(**titles, chapter="chapter")),
        Table("checklist_authors", text, theirs, columns(**titles)),
    )
