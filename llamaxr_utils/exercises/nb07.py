"""Exercises of notebook 07: which findings were found, missed or added, and
what an added one proves."""

from ..course.exercises import Exercise, choice, same_as
from ..evaluation.findings import label_report


def marks(reference, generated):
    """Finding -> found, missed, added or contradicts."""
    there, written = label_report(reference), label_report(generated)
    result = {}
    for finding in there | written:
        pair = there.get(finding), written.get(finding)
        reported = [state in ("present", "uncertain") for state in pair]
        if all(reported):
            result[finding] = "found"
        elif any(reported):
            denied = "absent" in pair
            one_sided = "missed" if reported[0] else "added"
            result[finding] = "contradicts" if denied else one_sided
    return result


EXERCISES = {
    "07a": Exercise(same_as(
        marks, ("The heart is enlarged.", "Cardiomegaly is present."),
        ("There is a pleural effusion.", "The heart is normal."),
        ("The lungs are clear.", "There is a rib fracture."),
        ("No pleural effusion.", "There is a left pleural effusion."),
        ("Possible pneumonia.", "No pneumonia."),
        ("No pneumothorax.", "No pneumothorax."), read=dict), marks, """
        `label_report(text)` gives finding -> present, absent or uncertain; a
        finding that is not mentioned is not in it.

        Present and uncertain both count as reported. Both report it: found.
        Only one does: missed or added ...

        ... unless the other one *denies* it: then they contradict. What nobody
        reports gets no mark.
        """,
        "Words may differ and findings agree; the other way round, too."),
    "07b": Exercise(choice("c", {
        "a": "The prompt named the condition, so the language model did not "
             "make it up.",
        "b": "It may be wrong; or it is right, and the radiologist did not "
             "mention what was not asked for.",
    }), "c", """
        Three can err: the image network, the language model, and the reference
        that is silent. Which of them does a score clear?

        A silent reference is no denial.
        """,
        "The score clears the language model and nobody else. Two texts and "
        "a number cannot say what the image shows: somebody must look."),
}
