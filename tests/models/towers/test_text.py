"""Against transformers' BertModel and its tokenizer, with random weights and a small vocabulary made here."""

import random
from dataclasses import replace

import pytest
import torch
from tokenizers import BertWordPieceTokenizer

from clipact.errors import ModelError
from clipact.models.towers.text import BertText
from clipact.models.towers.tower import Head
from clipact.train.chunks import Encoder, split_chunks
from clipact.train.pretrained_weights import rename_bert

SENTENCES = [
    "A man is reading a newspaper on the floor.",
    "drink",
    "Résumé naïve ÉCLAIR – “quotes” … ½",
    "日本語の文 mixed with English",
    "Ünïcödé\u0301 combining\u200bzero-width",
    "tabs\tand\nnewlines  and   spaces",
    "emoji 🏃‍♀️ runs",
    "don't stop-believing! (50%) #1 @home",
    "Ελληνικά и русский עברית العربية",
    "",
    "supercalifragilisticexpialidocious" * 4,
    "word " * 300,
]


@pytest.fixture(scope="module")
def tokenizer_file(tmp_path_factory):
    """A WordPiece table over letters and a few words, set up as BERT's uncased one is."""
    letters = "abcdefghijklmnopqrstuvwxyz0123456789.,!?'-()%#@–“”…½日本語の文ελληνικάрусскийעבריתالعربية"
    words = "a man is reading the floor drink news ##paper word with english stop home".split()
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *dict.fromkeys([*words, *letters])]
    pieces += [f"##{letter}" for letter in dict.fromkeys(letters)]
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer = BertWordPieceTokenizer(vocab={piece: i for i, piece in enumerate(pieces)}, lowercase=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
    return folder / "tokenizer.json"


@pytest.fixture(scope="module")
def tower(tokenizer_file) -> BertText:
    torch.manual_seed(0)
    config = BertText.Config(
        vocabulary=200, width=48, layers=3, heads=4, hidden=96, max_tokens=40, head=Head.Config(dim=16, hidden=8)
    )
    return BertText(config, tokenizer_file).eval()


@pytest.fixture(scope="module")
def bert(tower):
    from transformers import BertConfig, BertModel

    config = tower.config
    torch.manual_seed(1)
    bert = BertModel(
        BertConfig(
            vocab_size=config.vocabulary,
            hidden_size=config.width,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            intermediate_size=config.hidden,
            max_position_embeddings=config.max_tokens,
            hidden_dropout_prob=0.2,
            attention_probs_dropout_prob=0.0,
        ),
        add_pooling_layer=False,
    )
    for parameter in bert.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    tower.load_state_dict(
        tower.state_dict() | rename_bert(bert.state_dict(), max_tokens=config.max_tokens, depth=config.layers)
    )
    return bert.eval()


def test_equals_transformers(tower, bert):
    ids = tower.tokenize(SENTENCES)
    mask = (ids != 0).long()
    with torch.inference_mode():
        hidden = bert(input_ids=ids, attention_mask=mask).last_hidden_state
        weights = mask[..., None].float()
        expected = (hidden * weights).sum(1) / weights.sum(1)
        ours = tower.features(ids)
    assert expected.std() > 0.1
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)


def test_drops_what_transformers_drops(tower, bert, tokenizer_file):
    dropping = BertText(replace(tower.config, dropout=0.2), tokenizer_file).train()
    dropping.load_state_dict(tower.state_dict())
    ids = tower.tokenize(["a man reading", "the man home"] * 3)
    try:
        with torch.no_grad():
            torch.manual_seed(2)
            expected = bert.train()(input_ids=ids).last_hidden_state.mean(1)
            torch.manual_seed(2)
            ours = dropping.features(ids)
    finally:
        bert.eval()
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(ours, tower.features(ids), atol=1e-2)
    assert torch.equal(dropping.eval().features(ids), tower.features(ids))


@pytest.mark.parametrize(("depth", "kept"), [(9, [0, 1, 2, 3, 4, 5]), (4, [0, 2, 3, 5]), (3, [0, 2, 5]), (1, [0])])
def test_of_too_many_layers_some_at_even_distances_are_kept(bert, depth, kept):
    """Layers are told apart by a bias that holds their number."""
    one = {name: value for name, value in bert.state_dict().items() if ".layer.0." in name or ".layer." not in name}
    weights = {}
    for layer in range(6):
        for name, value in one.items():
            biased = torch.full_like(value, layer) if name.endswith("attention.output.dense.bias") else value
            weights[name.replace(".layer.0.", f".layer.{layer}.")] = biased
    renamed = rename_bert(weights, max_tokens=8, depth=depth)
    assert [int(renamed[f"layers.{place}.proj.bias"][0]) for place in range(len(kept))] == kept
    assert f"layers.{len(kept)}.proj.bias" not in renamed


def test_neighbours_and_padding_change_nothing(tower):
    with torch.inference_mode():
        batch = tower(tower.tokenize(SENTENCES))
        alone = torch.cat([tower(tower.tokenize([sentence])) for sentence in SENTENCES])
        assert torch.equal(tower(tower.tokenize(SENTENCES)), batch)
    torch.testing.assert_close(alone, batch, atol=1e-5, rtol=1e-5)


def test_a_chunk_is_the_same_bits_with_a_graph_and_without(tower):
    """What gradient caching rests on; only for answers are sentences grouped by length, which moves the last bits."""
    encoder = Encoder("text", tower, lambda said: tower(tower.tokenize(said)))
    (chunk,), _ = split_chunks(encoder, SENTENCES, chunk_size=len(SENTENCES), seed=0)
    with torch.no_grad():
        first = chunk.embed()
    again = chunk.embed()
    assert again.requires_grad
    assert torch.equal(first, again)


def test_word_pieces_equal_transformers(tower, tokenizer_file):
    from transformers import BertTokenizer

    theirs = BertTokenizer(str(tokenizer_file.with_name("vocab.txt")), do_lower_case=True, model_max_length=40)
    alphabet = "aàbcde éÉ日語\t.,-½ñИи\u0301\u200d🏃١"
    draw = random.Random(0)
    sentences = SENTENCES + ["".join(draw.choices(alphabet, k=draw.randint(1, 30))) for _ in range(200)]
    for sentence in sentences:
        assert tower.tokenize([sentence])[0].tolist() == theirs(sentence, truncation=True)["input_ids"], repr(sentence)


def test_what_a_user_types_is_never_a_special_token(tower):
    (ids,) = tower.tokenize(["a [PAD] man [SEP]"]).tolist()
    assert ids.count(0) == 0
    assert (ids.count(2), ids.count(3)) == (1, 1)


def test_every_parameter_gets_a_gradient(tower):
    tower.zero_grad()
    tower(tower.tokenize(SENTENCES)).square().sum().backward()
    assert [name for name, p in tower.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_the_tokenizer_travels_with_a_checkpoint(tower, tmp_path):
    tower.save_tokenizer(tmp_path)
    again = BertText(tower.config, tmp_path / "tokenizer.json")
    assert torch.equal(again.tokenize(SENTENCES), tower.tokenize(SENTENCES))


def test_a_broken_tokenizer_is_named(tower, tmp_path):
    broken = tmp_path / "tokenizer.json"
    broken.write_text("{}")
    with pytest.raises(ModelError, match="cannot be read as a tokenizer"):
        BertText(tower.config, broken).tokenize(["a"])
