"""The demo models' tokenizer: every character is one token, and nothing is added to a text."""

from __future__ import annotations

from tokenizers import Regex, Tokenizer
from tokenizers.decoders import Fuse
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split
from transformers import PreTrainedTokenizerFast

from evomerge.demo.skills import CHARACTERS

PAD = "<pad>"
EOS = "<eos>"
UNKNOWN = "<unk>"
VOCABULARY = (PAD, EOS, UNKNOWN, *CHARACTERS)
TOKEN_IDS = {token: token_id for token_id, token in enumerate(VOCABULARY)}
PAD_ID = TOKEN_IDS[PAD]
EOS_ID = TOKEN_IDS[EOS]
MAX_TOKENS = 64


def build_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer; encoding a text is encoding its parts and joining them."""
    tokenizer = Tokenizer(WordLevel(TOKEN_IDS, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = Split(Regex(r"[\s\S]"), behavior="isolated")
    tokenizer.decoder = Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=EOS,
        unk_token=UNKNOWN,
        padding_side="left",
        model_max_length=MAX_TOKENS,
        clean_up_tokenization_spaces=False,
    )


def encode(text: str) -> list[int]:
    """The token ids of a text of known characters, as the tokenizer would give them."""
    return [TOKEN_IDS[character] for character in text]
