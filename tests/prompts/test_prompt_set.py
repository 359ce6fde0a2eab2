"""Templates and their sets: one hole, sentences label by label, published sets verbatim."""

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipact.errors import ClipactError, LabelError
from clipact.prompts import LabelDetails, LabelSet, PromptSet, Template, set_names

# The first 16 hex digits of the SHA-256 of the templates as published, joined by newlines.
PUBLISHED = {
    "clip-ucf101": (48, "d1fceafd76c54a5f"),
    "clip-kinetics700": (28, "820c23cc30bda2e5"),
    "actionclip": (16, "3c15b373c88d8d5c"),
}


def test_a_template_has_one_hole():
    assert Template("a photo of {}.").fill("drinking {tea}") == "a photo of drinking {tea}."
    for text in ("a photo", "{} and {}", "{a}", "{{}}", "a { of {}", "a {0} {}", ""):
        with pytest.raises(LabelError, match="one hole"):
            Template(text)


def test_sentences_go_label_by_label_with_the_number_of_their_label():
    prompts = PromptSet.of(["a photo of {}.", "{}"])
    sentences, groups = prompts.sentences(["drink", "UseLaptop"])
    assert sentences == ["a photo of drinking.", "drinking", "a photo of using laptop.", "using laptop"]
    assert groups == [0, 0, 1, 1]


def test_phrases_left_alone_go_into_sentences_unchanged():
    labels = LabelSet.of(["ApplyEyeMakeup"], phrases=["ApplyEyeMakeup"])
    assert PromptSet.load("bare").sentences(labels) == (["ApplyEyeMakeup"], [0])


@settings(deadline=None)
@given(st.lists(st.text("abcäß跑 ", min_size=1, max_size=8), min_size=1, max_size=8), st.integers(1, 5))
def test_every_label_has_as_many_sentences_as_there_are_templates(words, count):
    prompts = PromptSet.of([f"take {i}: {{}}" for i in range(count)])
    try:
        labels = LabelSet.of(words)
    except LabelError:
        return
    sentences, groups = prompts.sentences(labels)
    assert groups == sorted(list(range(len(labels))) * count)
    assert len(set(sentences)) == len(sentences)
    assert all(labels.phrases[group] in sentence for sentence, group in zip(sentences, groups, strict=True))


def test_sets_that_cannot_be_used():
    with pytest.raises(LabelError, match="no template"):
        PromptSet.of([])
    with pytest.raises(LabelError, match=r"the template 'a \{\}' twice"):
        PromptSet.of(["a {}", "{}", "a {}"])
    with pytest.raises(LabelError, match=r"no prompt set 'actoin'; did you mean 'action'\? Known: action, actionclip"):
        PromptSet.load("actoin")
    with pytest.raises(LabelError, match="no such file"):
        PromptSet.load("my/own.toml")


@pytest.mark.parametrize("name", set_names("templates"))
def test_shipped_sets_load_and_say_where_they_are_from(name):
    prompts = PromptSet.load(name)
    assert prompts.name == name
    assert prompts.title
    assert prompts.source == "clipact's own" or "arXiv" in prompts.source


@pytest.mark.parametrize(("name", "count", "digest"), [(k, *v) for k, v in PUBLISHED.items()])
def test_published_sets_are_verbatim(name, count, digest):
    texts = [template.text for template in PromptSet.load(name).templates]
    assert len(texts) == count
    assert hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16] == digest


def test_the_default_set_is_the_one_that_was_measured():
    """eval/choose_templates.py judged the sentences, eval/prompt_study.py what is said of a label."""
    prompts = PromptSet.load("action")
    assert [template.text for template in prompts.templates] == [
        *("A person is {}.", "A man is {}.", "A woman is {}.", "People are {}."),
        *("a photo of a person {}.", "a video of {}."),
    ]
    assert prompts.wording.words == ("phrase", "synonyms", "descriptions")
    assert (prompts.wording.over_templates, prompts.wording.over_words) == ("embeddings", "mean")


def test_a_set_of_one_s_own(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('name = "mine"\ntemplates = ["look, {}!"]\n', encoding="utf-8")
    assert PromptSet.load(path) == PromptSet.load(str(path)) == PromptSet.of(["look, {}!"], name="mine")


def test_labels_are_written_once_for_all_sentences(monkeypatch):
    asked, written = [], LabelSet.written
    monkeypatch.setattr(LabelSet, "written", lambda labels, names: asked.append(names) or written(labels, names))
    PromptSet.load("clip-ucf101").worded(names="split").fill([f"carry box {i}" for i in range(50)])
    assert asked == ["split"]


def test_ten_thousand_labels_make_their_sentences():
    sentences, groups = PromptSet.load("action").sentences([f"carry box {i}" for i in range(10_000)])
    assert len(sentences) == len(groups) == 60_000
    assert (sentences[-1], groups[-1]) == ("a video of carrying box 9999.", 9_999)


def _described():
    about = {"drink": LabelDetails(synonyms=("sip", "drinking"), descriptions=("A cup is lifted.",))}
    return LabelSet(name="x", labels=("drink", "UseLaptop"), phrases=("drinking", "using a laptop"), about=about)


def test_words_of_a_label_are_its_phrase_its_synonyms_once_each_and_its_descriptions_as_they_are():
    prompts = PromptSet.of(["{}", "so {}"]).worded(words=("phrase", "synonyms", "descriptions"))
    assert [(p.text, p.label, p.word, p.template) for p in prompts.fill(_described())] == [
        ("drinking", 0, 0, 0),
        ("so drinking", 0, 0, 1),
        ("sipping", 0, 1, 0),
        ("so sipping", 0, 1, 1),
        ("A cup is lifted.", 0, 2, None),
        ("using a laptop", 1, 0, 0),
        ("so using a laptop", 1, 0, 1),
    ]


def test_a_label_of_which_nothing_is_known_is_named():
    with pytest.raises(LabelError, match="'UseLaptop' has no synonyms and no descriptions; add the phrase"):
        PromptSet.load("bare").worded(words=("synonyms", "descriptions")).fill(_described())


@pytest.mark.parametrize(
    ("names", "said"), [("phrases", "using a laptop"), ("split", "use laptop"), ("verbatim", "UseLaptop")]
)
def test_names_are_written_as_the_wording_says(names, said):
    assert PromptSet.load("bare").worded(names=names).fill(_described())[1].text == said


def test_a_prompt_file_of_one_s_own_says_how_its_sentences_are_pooled(tmp_path):
    path = tmp_path / "mine.toml"
    text = 'name = "mine"\ntemplates = ["{}", "so {}"]\nweights = [1, 3.0]\n[wording]\nwords = ["phrase", "synonyms"]\n'
    path.write_text(text + 'over_templates = "weighted"\nover_words = "max"\n')
    mine = PromptSet.load(path)
    assert mine.weights == (1.0, 3.0)
    assert (mine.wording.words, mine.wording.over_words) == (("phrase", "synonyms"), "max")
    assert not mine.awaits_weights
    assert mine.worded(over_templates="embeddings").weights == ()
    for wrong, told in [
        (text, "over_templates = .weighted"),
        (text.replace("[1, 3.0]", "[1]") + 'over_templates = "weighted"', "1 weights for 2 templates"),
        (text.replace("[1, 3.0]", "[1, -1]") + 'over_templates = "weighted"', "none below 0"),
        (text + 'over_templates = "weightd"', "did you mean 'weighted'"),
        (text.replace('"synonyms"', '"synonym"'), "did you mean 'synonyms'"),
        (text.replace('["phrase", "synonyms"]', "[]"), "one or more of phrase"),
    ]:
        path.write_text(wrong)
        with pytest.raises(ClipactError, match=told):
            PromptSet.load(path)
